"""What the normaliser makes of Slack's markup, case by case."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.text.slack import MAX_LINKS, normalise_label, normalise_message

NAMES = {"U1": "Ada L", "U2": "_under_ *star*", "C1": "general"}
FENCE = "```"


def text_of(text: str) -> str:
    return normalise_message({"text": text}, NAMES).text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        # people, channels, groups
        ("hi <@U1>", "hi @Ada L"),
        ("hi <@U1|ada>", "hi @Ada L"),
        ("hi <@U9|bob>", "hi @bob"),
        ("hi <@U9>", "hi @U9"),
        ("hi <@U2>!", "hi @_under_ *star*!"),  # a name is no markup
        ("in <#C1|old-name>", "in #old-name"),
        ("in <#C1>", "in #general"),
        ("in <#C1|>", "in #general"),
        ("in <#C9>", "in #C9"),
        ("<!here> <!channel|channel> <!everyone>", "@here @channel @everyone"),
        ("<!subteam^S1|@ops> and <!subteam^S2>", "@ops and @S2"),
        ("<!date^1392734382^{date}^https://x.io/?a=b|Feb 18>", "Feb 18"),
        # links
        ("<https://x.io/a|the docs>", "the docs"),
        ("<https://x.io/a?token=s&amp;b=1#frag>", "https://x.io/a"),
        ("<https://me:pw@x.io/a>", "https://x.io/a"),
        ("<https://x.io/a?k=s|https://x.io/a?k=s>", "https://x.io/a"),
        ("see https://x.io/a?token=s).", "see https://x.io/a)."),
        ("*https://x.io/a_b_c*", "https://x.io/a_b_c"),
        ("<mailto:a@b.io|a@b.io> <mailto:c@d.io?subject=x> <tel:+1555|call>", "a@b.io c@d.io call"),
        # entities
        ("a &lt;b&gt; &amp; c", "a <b> & c"),
        ("&amp;lt;", "&lt;"),
        ("&lt;@U1&gt;", "<@U1>"),
        ("&nbsp; &copy", "&nbsp; &copy"),
        # emoji
        ("nice :thumbs_up: work", "nice thumbs up work"),
        (":wave::skin-tone-2: hi", "wave hi"),
        (":smile::tada:", "smile tada"),
        (":+1: and :100:", "+1 and 100"),
        ("at 10:30:45 and :30: on std::vector::x", "at 10:30:45 and :30: on std::vector::x"),
        ("a:b:c C:\\x :D", "a:b:c C:\\x :D"),
        # marks
        ("*bold* _it_ ~gone~ (*x*), *_both_*, _*both*_", "bold it gone (x), both, both"),
        ("*<@U1>* said", "@Ada L said"),
        ("snake_case_name 2*3*4 __init__ *.py and *.txt", "snake_case_name 2*3*4 __init__ *.py and *.txt"),
        ("cd ~/a && ls ~/b; a * b * c", "cd ~/a && ls ~/b; a * b * c"),
        # code
        ("run `x_y *a* :tada: &lt;@U1&gt;`", "run `x_y *a* :tada: <@U1>`"),
        (f"{FENCE}if a &lt; b:\n    *p* = :x:{FENCE} *done*", f"{FENCE}if a < b:\n    *p* = :x:{FENCE} done"),
        # secrets
        ("key xoxb-12-ab_C now", "key [token] now"),
        ("`xoxp-1-2`", "`[token]`"),
        ("<https://x.io/xoxe-1-2|go> xo\x07xb-1", "go [token]"),
        # cleaning
        ("a\x00b\x07 \r\nc\td  \n\n\n\n\ne ", "ab\nc\td\n\ne"),
        ("e\u0301 \ud800", "\u00e9 \ufffd"),
        ("a \x00 <@U1>", "a  @Ada L"),
    ],
)
def test_text(raw: str, expected: str) -> None:
    assert text_of(raw) == expected


def test_links_are_kept_without_query_fragment_and_userinfo() -> None:
    found = normalise_message(
        {"text": "<https://u:p@x.io/a?s=1|docs> http://y.io/b#c, <https://x.io/a> <mailto:a@b.io>"}, NAMES
    )
    assert found.links == ("https://x.io/a", "http://y.io/b")


def test_links_are_limited() -> None:
    many = " ".join(f"<https://x.io/{n}>" for n in range(MAX_LINKS + 5))
    assert len(normalise_message({"text": many}, {}).links) == MAX_LINKS


@pytest.mark.parametrize(
    ("raw", "refs"),
    [
        ("<@U1> <@U9|bob>", {"U1", "U9"}),  # bob would be renamed by an entry in the names
        ("<#C1|general>", set()),  # the label wins, whatever the names say
        ("<#C1> <#C9|>", {"C1", "C9"}),
        ("`<@U1>` <!subteam^S1|@g>", set()),
    ],
)
def test_refs_are_the_ids_whose_name_would_change_the_text(raw: str, refs: set[str]) -> None:
    assert normalise_message({"text": raw}, NAMES).refs == refs


def rich(*elements: dict[str, object]) -> dict[str, object]:
    return {"type": "rich_text", "elements": list(elements)}


def section(*elements: dict[str, object]) -> dict[str, object]:
    return {"type": "rich_text_section", "elements": list(elements)}


def words(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


RICH = rich(
    section(
        words("Hi "),
        {"type": "user", "user_id": "U1"},
        words(" in "),
        {"type": "channel", "channel_id": "C1"},
        words(" "),
        {"type": "link", "url": "https://x.io/a?b=c", "text": "docs"},
        words(" a<b "),
        {"type": "emoji", "name": "thumbs_up"},
        {"type": "emoji", "name": "tada"},
        {"type": "broadcast", "range": "here"},
        {"type": "usergroup", "usergroup_id": "S1"},
    ),
    {"type": "rich_text_list", "style": "bullet", "elements": [section(words("one")), section(words("two"))]},
    {"type": "rich_text_quote", "elements": [words("quoted")]},
    {"type": "rich_text_preformatted", "elements": [words("x = *p*")]},
)
RICH_LINES = ["Hi @Ada L in #general docs a<b thumbs up tada@here@S1", "• one", "• two", "> quoted"]
RICH_TEXT = "\n".join([*RICH_LINES, FENCE, "x = *p*", FENCE])


def test_rich_text_stands_in_for_a_missing_text() -> None:
    found = normalise_message({"blocks": [RICH]}, NAMES)
    assert found.text == RICH_TEXT
    assert found.links == ("https://x.io/a",)
    assert found.refs == {"U1", "C1"}


def test_a_mirror_of_the_text_is_not_said_twice() -> None:
    text = (
        "Hi <@U1> in <#C1> <https://x.io/a?b=c|docs> a&lt;b :thumbs_up::tada:<!here><!subteam^S1|@ops>\n"
        f"• one\n• two\n&gt; quoted\n{FENCE}x = *p*{FENCE}"
    )
    found = normalise_message({"text": text, "blocks": [RICH]}, NAMES).text
    assert found == text_of(text)


def test_only_what_the_text_lacks_is_added() -> None:
    message = {"text": "Build done", "blocks": [rich(section(words("Build done"))), rich(section(words("in 5 min")))]}
    assert normalise_message(message, {}).text == "Build done\nin 5 min"


def test_block_kit_text() -> None:
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": "Deploy"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "*ok* by <@U1>"}, "fields": [{"text": "env: prod"}]},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "at noon"}, {"type": "image", "alt_text": "logo"}]},
        {"type": "actions", "elements": [{"type": "button", "text": {"text": "Click"}}]},
        {"type": "table", "rows": [[{"type": "raw_text", "text": "cell"}, rich(section(words("rich cell")))]]},
        {"type": "divider"},
    ]
    expected = "Deploy\nok by @Ada L\nenv: prod\nat noon\nlogo\ncell\nrich cell"
    assert normalise_message({"blocks": blocks}, NAMES).text == expected


@pytest.mark.parametrize(
    ("attachment", "expected"),
    [
        ({"pretext": "pre", "title": "T", "text": "*b*", "fallback": "never"}, "pre\nT\nb"),
        ({"fields": [{"title": "Env", "value": "prod"}, {"value": "x"}]}, "Env: prod\nx"),
        ({"fallback": "only <@U1>"}, "only @Ada L"),
        ({"fallback": "[no preview available]"}, ""),
        ({"blocks": [{"type": "section", "text": {"text": "inner"}}], "fallback": "never"}, "inner"),
        ({"text": "hello"}, "hello"),
    ],
)
def test_attachments(attachment: dict[str, object], expected: str) -> None:
    assert normalise_message({"text": "", "attachments": [attachment]}, NAMES).text == expected
    assert normalise_message({"text": "hello", "attachments": [{"text": "Hello!"}]}, NAMES).text == "hello"


def test_files_give_their_title_and_never_their_url() -> None:
    secret = "https://files.slack.com/a/b.pdf?t=xoxe-1-secret"
    message = {
        "text": "see",
        "files": [
            {"title": "Q3 &amp; Q4", "name": "q.pdf", "url_private": secret},
            {"name": "b.txt", "permalink": secret},
            {"mode": "tombstone", "id": "F1"},
        ],
    }
    found = normalise_message(message, {})
    assert found.text == "see\nQ3 & Q4\nb.txt"
    assert found.files == ("Q3 & Q4", "b.txt")
    assert "secret" not in repr(found)
    assert normalise_message({"files": [{"title": secret}]}, {}).text == "https://files.slack.com/a/b.pdf"


def test_old_exports_comments_and_files() -> None:
    message = {
        "text": "up",
        "file": {"title": "pic", "initial_comment": {"comment": "first"}},
        "comment": {"comment": "c"},
    }
    assert normalise_message(message, {}).text == "up\nc\nfirst\npic"


def test_label_is_one_clean_line() -> None:
    assert normalise_label(" a\n b &amp; xoxb-1-2 http://x.io/?q=1 ") == "a b & [token] http://x.io/"


@given(st.text(alphabet="ab1 <>&@#!|:*_~`^/?xo-\n\0;U"))
def test_any_text_is_normalised(text: str) -> None:
    found = text_of(text)
    assert found == found.strip()
    assert "\0" not in found


@pytest.mark.parametrize("piece", ["<", "`", "*a ", "_a ", "~a ", ":a", "```", "<@", "http://", "<http://a|", "&lt;"])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    start = time.perf_counter()
    text_of(piece * 20_000)
    assert time.perf_counter() - start < 5  # quadratic behaviour would take minutes
