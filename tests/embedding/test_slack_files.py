"""The text that an export carries inside the file objects of a message."""

from __future__ import annotations

import pytest

from embedding.text.slack import normalise_message


def lines_of(*files: dict[str, object], **message: object) -> list[str]:
    return normalise_message({"files": list(files), **message}, {}).text.split("\n")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (
            {"title": "run.py", "mode": "snippet", "preview": "if a < b:\n    *p* = 1"},
            ["run.py", "if a < b:", "    *p* = 1"],
        ),
        ({"title": "Rules", "mode": "post", "preview": "Ask before noon."}, ["Rules", "Ask before noon."]),
        (
            {
                "title": "Rules",
                "mode": "space",
                "preview": "<h1>Ask</h1><p>before <b>no</b>on<br>or wait</p><style>p{}</style>",
            },
            ["Rules", "Ask", "before noon", "or wait"],
        ),
        (
            {"title": "Goals", "mode": "quip", "filetype": "quip", "content": "Ship it twice"},
            ["Goals", "Ship it twice"],
        ),
        (
            {"title": "a.txt", "preview": "first words of", "content": "first words of a letter"},
            ["a.txt", "first words of a letter"],
        ),
        ({"title": "a.txt", "preview": "first wo...", "content": "first words"}, ["a.txt", "first words"]),
        (
            {
                "title": "Re: roof",
                "mode": "email",
                "subject": "Re: roof",
                "plain_text": "The roof is dry again.",
                "preview": "<div>The roof is <b>dry</b></div>",
                "simplified_html": "<p>The roof is dry again.</p>",
            },
            ["Re: roof", "The roof is dry again."],
        ),
        (
            {
                "title": "mail",
                "subject": "Roof",
                "from": [{"original": "Ann <ann@x.io>"}],
                "to": [{"address": "b@x.io"}],
                "cc": [{"name": "Cy", "address": "c@x.io"}],
                "simplified_html": "<p>It is dry.</p>",
                "attachments": [{"filename": "roof.jpg", "url": "https://files.slack.com/roof.jpg?t=1"}],
            },
            ["mail", "Roof", "From: Ann <ann@x.io>", "To: b@x.io", "Cc: Cy <c@x.io>", "It is dry.", "roof.jpg"],
        ),
        (
            {"title": "voice.m4a", "transcription": {"status": "complete", "preview": {"content": "call the plumber"}}},
            ["voice.m4a", "call the plumber"],
        ),
        ({"title": "voice.m4a", "transcription": {"status": "processing"}}, ["voice.m4a"]),
        ({"title": "cat.png", "alt_txt": "a cat on a mat"}, ["cat.png", "a cat on a mat"]),
        ({"title": "Tasks", "list_metadata": {"description": "open tasks"}}, ["Tasks", "open tasks"]),
        (
            {
                "title": "Canvas",
                "title_blocks": [{"type": "header", "text": {"text": "Canvas"}}],
                "blocks": [{"type": "section", "text": {"text": "In the canvas"}}],
            },
            ["Canvas", "In the canvas"],
        ),
        ({"title": "old.gif", "comments": [{"comment": "so *nice*"}]}, ["old.gif", "so nice"]),
        (
            {"title": "odd", "preview": 7, "transcription": [], "from": {}, "list_metadata": "x", "comments": [1]},
            ["odd"],
        ),
    ],
)
def test_content_of_a_file(file: dict[str, object], expected: list[str]) -> None:
    assert lines_of(file) == expected


@pytest.mark.parametrize("mode", ["tombstone", "hidden_by_limit"])
def test_a_file_that_is_gone_says_nothing(mode: str) -> None:
    gone = {"id": "F1", "mode": mode, "title": "This file was deleted.", "preview": "was here"}
    found = normalise_message({"text": "", "files": [gone]}, {})
    assert (found.text, found.files) == ("", ())


def test_no_url_of_slack_and_no_token_is_text() -> None:
    secret = "https://files.slack.com/F1/a?t=xoxe-1-secret"
    file = {
        "title": "t",
        "mode": "post",
        "preview": f"see {secret} xoxb-2-secret",
        "url_private": secret,
        "url_private_download": secret,
        "permalink_public": secret,
        "vtt": secret,
        "thumb_360": secret,
        "preview_highlight": f"<div>{secret}</div>",
    }
    for each in (file, {**file, "mode": "snippet"}, {**file, "preview": f"<p>{secret}</p>"}):
        found = normalise_message({"text": "", "files": [each]}, {})
        assert "secret" not in repr(found)


def test_files_in_attachments_and_a_file_in_two_fields() -> None:
    file: dict[str, object] = {"id": "F1", "title": "run.py", "mode": "snippet", "preview": "pass"}
    assert normalise_message({"text": "", "attachments": [{"files": [file]}]}, {}).text == "run.py\npass"
    assert lines_of(file, file=file) == ["run.py", "pass"]
    assert lines_of(file, {**file, "id": "F2"}) == ["run.py", "pass", "run.py", "pass"]


def test_a_comment_that_came_with_two_files_is_said_once() -> None:
    comment = {"initial_comment": {"comment": "both of them"}}
    assert lines_of({"title": "a", **comment}, {"title": "b", **comment}) == ["both of them", "a", "b"]


def test_a_comment_on_a_file_does_not_say_the_file_again() -> None:
    file = {"title": "run.py", "mode": "snippet", "preview": "pass"}
    comment = {"subtype": "file_comment", "comment": {"comment": "nice"}, "file": file}
    assert normalise_message(comment, {}).text == "nice\nrun.py"
