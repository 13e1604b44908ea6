"""Calendars (iCalendar) and address cards (vCard) to lines that read as text. A line that is odd costs itself alone."""

from __future__ import annotations

import quopri
import re
from collections.abc import Iterator

from embedding.parsers.encoding import decode_text
from embedding.parsers.parsed import Limits, TextBuilder

# In the order of a reader's interest; what is not named here is for programs.
_EVENT = {
    "SUMMARY": "Summary",
    "DTSTART": "Start",
    "DTEND": "End",
    "DUE": "Due",
    "DURATION": "Duration",
    "LOCATION": "Location",
    "ORGANIZER": "Organizer",
    "ATTENDEE": "Attendees",
    "CONTACT": "Contact",
    "STATUS": "Status",
    "CATEGORIES": "Categories",
    "RESOURCES": "Resources",
    "DESCRIPTION": "Description",
    "COMMENT": "Comment",
    "URL": "Url",
    "RRULE": "Repeats",
}
_CARD = {
    "FN": "Name",
    "N": "Name",
    "NICKNAME": "Nickname",
    "ORG": "Organisation",
    "TITLE": "Title",
    "ROLE": "Role",
    "EMAIL": "Mail",
    "TEL": "Phone",
    "IMPP": "Chat",
    "ADR": "Address",
    "LABEL": "Address",
    "BDAY": "Birthday",
    "ANNIVERSARY": "Anniversary",
    "CATEGORIES": "Categories",
    "NOTE": "Note",
    "URL": "Url",
    "RELATED": "Related",
}
_COMPONENTS = {"VEVENT": _EVENT, "VTODO": _EVENT, "VJOURNAL": _EVENT, "VCARD": _CARD}
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)?(Z?))?$")
_ESCAPE = re.compile(r"\\([\\;,:nN])")


def parse_calendar(text: str, out: TextBuilder, limits: Limits) -> None:
    """Write a paragraph per event, task or card: ``Summary: …``, ``Start: 2024-05-02 09:00 Europe/Oslo``."""
    entries = 0
    for lines in calendar_entries(text):
        out.lines(lines)
        entries += 1
    if not entries:
        out.add(text)  # nothing of what we know: it is text all the same
    out.meta["entries"] = entries


def calendar_entries(text: str) -> Iterator[list[str]]:
    """Yield the lines of each event, task, journal entry or card; properties of alarms and zones are left out."""
    opened: list[str] = []
    found: dict[str, list[str]] = {}
    for line in _unfolded(text):
        name, parameters, value = _parts(line)
        if name == "BEGIN":
            opened.append(value.strip().upper())
            if opened[-1] in _COMPONENTS:
                found = {}
        elif name == "END":
            ended = value.strip().upper()
            while opened and opened.pop() != ended:
                pass
            if ended in _COMPONENTS and found:
                yield _written(found, _COMPONENTS[ended])
                found = {}
        elif opened and opened[-1] in _COMPONENTS and name in _COMPONENTS[opened[-1]]:
            shown = _shown(name, parameters, value)
            if shown and shown not in found.setdefault(name, []):
                found[name].append(shown)
    if found and opened and opened[-1] in _COMPONENTS:
        yield _written(found, _COMPONENTS[opened[-1]])  # cut off before its end


def _unfolded(text: str) -> Iterator[str]:
    from icalendar.parser import Contentlines  # here: it takes longer to load than most files take to parse

    if "QUOTED-PRINTABLE" in text.upper():
        text = re.sub(r"=\r?\n[ \t]?", "", text)  # vCard 2.1 folds in its own way
    return (str(line) for line in Contentlines.from_ical(text.strip()) if line.strip())  # type: ignore[no-untyped-call]


def _parts(line: str) -> tuple[str, dict[str, str], str]:
    from icalendar.parser import Contentline

    try:
        name, given, value = Contentline(line).parts()  # type: ignore[no-untyped-call]
        parameters = {str(key).upper(): str(found) for key, found in given.items()}
    except ValueError:
        name, _, value = line.partition(":")
        name, parameters, value = name.partition(";")[0], {}, _plain(value)
    if parameters.get("ENCODING", "").upper() == "QUOTED-PRINTABLE" or "QUOTED-PRINTABLE" in parameters:
        data = quopri.decodestring(str(value).encode("utf-8", "replace"))
        value = decode_text(data, declared=parameters.get("CHARSET")) or str(value)
    # Apple groups properties of cards ("item1.TEL").
    return str(name).rpartition(".")[2].strip().upper(), parameters, str(value)


def _shown(name: str, parameters: dict[str, str], value: str) -> str:
    if name in ("ORGANIZER", "ATTENDEE"):
        address = re.sub(r"(?i)^mailto:", "", value.strip())
        person = parameters.get("CN", "").strip('" ')
        return f"{person} <{address}>" if person and person != address else address
    if name in ("DTSTART", "DTEND", "DUE"):
        return _moment(value.strip(), parameters.get("TZID", ""))
    if name in ("ADR", "N", "ORG"):
        parts = [part.strip() for part in value.split(";")]
        return (" " if name == "N" else ", ").join(part for part in parts if part)
    return value.strip()


def _moment(value: str, zone: str) -> str:
    match = _MOMENT.match(value)
    if not match:
        return value
    year, month, day, hour, minute, _, utc = match.groups()
    clock = f" {hour}:{minute}" if hour else ""
    place = " UTC" if utc else f" {zone}" if zone and clock else ""
    return f"{year}-{month}-{day}{clock}{place}"


def _plain(value: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found[1] in "nN" else found[1], value)


def _written(found: dict[str, list[str]], names: dict[str, str]) -> list[str]:
    if "FN" in found:
        found.pop("N", None)  # the same name, in parts
    return [f"{shown}: {', '.join(found[name])}" for name, shown in names.items() if name in found]
