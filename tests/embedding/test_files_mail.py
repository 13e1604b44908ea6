"""Mail: what a reader would see is in the text, each thing once, in order."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from embedding.parsers import ParsedFile, parse_file

HEAD = (
    b"From: ida@x.example\nTo: per@x.example\nSubject: Crane\nDate: Mon, 6 May 2024 10:00:00 +0000\nMIME-Version: 1.0\n"
)


def read(body: bytes, head: bytes = HEAD) -> ParsedFile:
    return parse_file(head + body, "mail.eml")


def multipart(kind: str, *parts: bytes, after: bytes = b"") -> bytes:
    middle = b"".join(b"--cut\n" + part + b"\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary=cut\n\n".encode() + middle + b"--cut--\n" + after


def part(kind: str, text: str, more: str = "") -> bytes:
    return f"Content-Type: {kind}; charset=utf-8\n{more}\n{text}\n".encode()


def body_of(parsed: ParsedFile) -> str:
    return parsed.text.partition("+0000\n\n")[2]


HTML = "<p>The north crane is closed until Thursday because of the storm.</p>"


def test_a_footer_in_another_part_does_not_take_the_body_away() -> None:
    parsed = read(multipart("mixed", part("text/html", HTML), part("text/plain", "-- list footer")))
    assert body_of(parsed) == "The north crane is closed until Thursday because of the storm.\n\n-- list footer"


def test_parts_stay_in_their_order_and_a_footer_below_the_last_border_is_kept() -> None:
    parts = [part("text/plain", "First."), part("text/html", "<b>Second.</b>"), part("text/plain", "Third.")]
    parsed = read(multipart("mixed", *parts, after=b"Sent to the list of crane drivers\n"))
    assert body_of(parsed) == "First.\n\nSecond.\n\nThird.\n\nSent to the list of crane drivers"


def test_a_forwarded_mail_is_read_with_its_own_head() -> None:
    inner = b"Content-Type: message/rfc822\n\nFrom: kim@x.example\nSubject: Lunch\n\nInner words.\n"
    parsed = read(multipart("mixed", part("text/html", HTML), inner))
    assert body_of(parsed).endswith("storm.\n\nSubject: Lunch\nFrom: kim@x.example\n\nInner words.")


def test_lines_that_one_version_alone_has_are_written_and_no_others() -> None:
    story = (
        "The north crane is closed until Thursday because of a storm, and ships wait in the outer bay. Pilots who know"
    )
    story += " the shallow passage may bring in small boats by daylight; everybody else calls the harbour office first."
    page = f"<p>{story}</p><table><tr><td>Winch: shed 5</td></tr></table><p>the</p><p>---</p>"
    versions = part("text/plain", story + "\n\nPier code: 4471"), part("text/html", page)
    assert body_of(read(multipart("alternative", *versions))) == f"{story}\n\nPier code: 4471\n\nWinch: shed 5"


def test_of_two_versions_of_one_text_the_plain_one_is_written_once() -> None:
    plain = "The north crane is closed until\nThursday because of the storm."
    parsed = read(multipart("alternative", part("text/plain", plain), part("text/html", HTML)))
    assert body_of(parsed) == plain


@pytest.mark.parametrize("stub", ["Your program shows no HTML.", "", "See the web version"])
def test_a_plain_version_that_says_nothing_does_not_hide_the_other(stub: str) -> None:
    parsed = read(multipart("alternative", part("text/plain", stub), part("text/html", HTML)))
    assert "closed until Thursday" in parsed.text and stub in parsed.text


def test_a_page_with_its_pictures_is_a_version_too() -> None:
    related = multipart("related", part("text/html", HTML)).replace(b"cut", b"inner")
    assert "closed until Thursday" in read(multipart("alternative", part("text/plain", "No HTML?"), related)).text


INVITATION = """BEGIN:VCALENDAR
BEGIN:VTIMEZONE
TZID:Oslo
END:VTIMEZONE
BEGIN:VEVENT
SUMMARY:Crane check\\, north
DTSTART;TZID=Europe/Oslo:20240502T090000
LOCATION:Quay 4
ORGANIZER;CN=Ida Berg:mailto:ida@x.example
ATTENDEE;CN="Per, Foreman":mailto:per@x.example
ATTENDEE:mailto:kim@x.example
DESCRIPTION:Bring the lo
 ng key.\\nAsk at the gate.
AN ODD LINE
BEGIN:VALARM
DESCRIPTION:Reminder
END:VALARM
END:VEVENT
END:VCALENDAR"""


def test_an_invitation_is_read_once() -> None:
    attached = part("text/calendar", INVITATION, "Content-Disposition: attachment; filename=invite.ics\n")
    alternative = multipart("alternative", part("text/plain", "Come!"), part("text/calendar", INVITATION))
    parsed = read(multipart("mixed", alternative.replace(b"cut", b"inner"), attached))
    assert body_of(parsed) == (
        "Come!\n\nSummary: Crane check, north\nStart: 2024-05-02 09:00 Europe/Oslo\nLocation: Quay 4\n"
        "Organizer: Ida Berg <ida@x.example>\nAttendees: Per, Foreman <per@x.example>, kim@x.example\n"
        "Description: Bring the long key.\nAsk at the gate.\n\nAttachments: invite.ics"
    )


def test_calendars_and_cards_are_files_too() -> None:
    assert parse_file(INVITATION.encode(), "a.ics").text.startswith("Summary: Crane check, north\nStart: 2024-05-02")
    card = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ida Berg\r\nORG:Harbour;Cranes\r\nTEL;TYPE=work:+47 1\r\nEND:VCARD\r\n"
    parsed = parse_file(card.encode(), "ida.vcf")
    assert (parsed.text, parsed.media_type) == (
        "Name: Ida Berg\nOrganisation: Harbour, Cranes\nPhone: +47 1",
        "text/vcard",
    )


@pytest.mark.parametrize(
    ("label", "encoding", "text"),
    [
        ("gb2312", "gbk", "朱镕基先生"),
        ("ks_c_5601-1987", "cp949", "똠방각하"),
        ("iso-8859-8-i", "iso8859_8", "שלום לכולם"),
        ("windows-874", "cp874", "การประชุม"),
        ("x-sjis", "cp932", "①番の髙橋"),
    ],
)
def test_labels_of_the_web_are_known_in_body_and_subject(label: str, encoding: str, text: str) -> None:
    import base64

    word = base64.b64encode(text.encode(encoding)).decode()
    head = f"From: a@x.example\nTo: b@x.example\nSubject: =?{label}?B?{word}?=\nMIME-Version: 1.0\n".encode()
    body = f'Content-Type: text/plain; charset="{label}"\nContent-Transfer-Encoding: 8bit\n\n'.encode()
    parsed = read(body + text.encode(encoding), head)
    assert parsed.title == text and parsed.text.endswith(f"\n\n{text}")
    quoted = "".join(f"%{byte:02X}" for byte in text.encode(encoding))
    file = f"Content-Type: application/pdf\nContent-Disposition: attachment; filename*={label}''{quoted}.pdf\n\nx\n"
    assert read(multipart("mixed", part("text/plain", "See."), file.encode())).meta["attachments"] == [f"{text}.pdf"]


def test_a_subject_of_raw_bytes_is_read() -> None:
    head = "From: a@x.example\nTo: b@x.example\nSubject: Grüße von Jörg\nDate: x\n".encode("cp1252")
    assert read(b"\nBody", head).title == "Grüße von Jörg"


def test_a_bounce_says_what_failed() -> None:
    status = b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\nFinal-Recipient: rfc822; kim@x.example\nDiagnostic-Code: no such user\n"
    parsed = read(multipart("report", part("text/plain", "Sorry."), status))
    assert "Sorry." in parsed.text and "Diagnostic-Code: no such user" in parsed.text


def test_a_multipart_without_its_border_keeps_its_text() -> None:
    assert "Lost border words" in read(b"Content-Type: multipart/mixed\n\nLost border words\n").text


def test_an_attached_file_is_named_and_not_read() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@x.example", "b@x.example", "Plan"
    message.set_content("See the plan.")
    message.add_attachment(b"secret plan", maintype="text", subtype="plain", filename="plan.txt")
    parsed = parse_file(message.as_bytes(), "m.eml")
    assert parsed.meta["attachments"] == ["plan.txt"] and "secret plan" not in parsed.text


def test_one_odd_message_does_not_cost_the_mailbox() -> None:
    mails = [
        b"From a@x.example Mon May 6 10:00:00 2024\nFrom: a@x.example\nSubject: %d\n\nText %d\n\n" % (n, n)
        for n in range(3)
    ]
    mails[1] = mails[1].replace(
        b"\n\nText", b'\nContent-Type: text/plain; charset="\xff\xfe\nContent-Disposition: ;;;=\n\nText'
    )
    parsed = parse_file(b"".join(mails), "box.mbox")
    assert "Text 0" in parsed.text and "Text 2" in parsed.text and parsed.meta["messages"] == 3
