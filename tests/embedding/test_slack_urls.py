"""Where a bare URL ends in a text without blanks, and that nothing of its query stays."""

from __future__ import annotations

import time

import pytest

from embedding.text.slack import normalise_message

BARE = "https://x.io/a"


@pytest.mark.parametrize(
    ("raw", "expected", "link"),
    [
        # the sentence goes on without a blank
        ("資料は{}?k=sにあります。来週まで。", "資料は{}にあります。来週まで。", BARE),
        ("{}?k=s#topから見る", "{}から見る", BARE),
        ("{}?k=s&amp;l=tです", "{}です", BARE),
        ("{}#top에서 확인하세요", "{}에서 확인하세요", BARE),
        ("ดู{}?k=sครับ ขอบคุณ", "ดู{}ครับ ขอบคุณ", BARE),
        ("{}?k=s，然后关门（谢谢）", "{}，然后关门（谢谢）", BARE),
        ("{}?k=s）、次", "{}）、次", BARE),
        ("「{}?k=s」を読む", "「{}」を読む", BARE),
        ("{}?k=s。{}?k=tも", "{}。{}も", BARE),
        ("{}を見ましたか?はい", "{}を見ましたか?はい", BARE),
        ("{}?はい", "{}?はい", BARE),
        ("{}?k=s—then “quoted”", "{}—then “quoted”", BARE),
        ("{}?k=s🎉 party", "{}🎉 party", BARE),
        ("{}?k=s، ثم", "{}، ثم", BARE),
        ("{}?k=s,then close the door", "{},then close the door", BARE),
        # letters that are the URL's
        ("https://x.io/wiki/東京?k=s を見る", "https://x.io/wiki/東京 を見る", "https://x.io/wiki/東京"),
        ("https://x.io/wiki/Ответ_да?k=s вот", "https://x.io/wiki/Ответ_да вот", "https://x.io/wiki/Ответ_да"),
        ("https://例え.jp/a?k=s 次", "https://例え.jp/a 次", "https://例え.jp/a"),
        ("https://x.io/café?k=é&l=t fin", "https://x.io/café fin", "https://x.io/café"),
        # a query is never left in the text because of such letters
        ("{}?q=東京&token=s 次", "{} 次", BARE),
        ("{}?q=東京tower&token=s 次", "{} 次", BARE),
        ("https://x.io/Q3資料/plan.pdf?token=s 次", "https://x.io/Q3資料/plan.pdf 次", "https://x.io/Q3資料/plan.pdf"),
        ("{}?ids=1,2,3 next", "{} next", BARE),
        ("{}?sig=s,T0ken next", "{} next", BARE),
    ],
)
def test_text_after_a_bare_url(raw: str, expected: str, link: str) -> None:
    found = normalise_message({"text": raw.replace("{}", BARE)}, {})
    assert found.text == expected.replace("{}", BARE)
    assert found.links == (link,)


@pytest.mark.parametrize(
    "piece", ["https://東", "https://a?é東", "https://x/?a=東&b=", "東a?", "/東", "&a=東", "?,a", ",a", "東&amp;"]
)
def test_hostile_urls_take_linear_time(piece: str) -> None:
    start = time.perf_counter()
    normalise_message({"text": "https://x.io/?" + piece * 20_000}, {})
    normalise_message({"text": "https://x.io/" + piece * 20_000}, {})
    assert time.perf_counter() - start < 5  # quadratic behaviour would take minutes


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("<http://www.x.io/a?k=secret|www.x.io/a?k=secret>", "www.x.io/a"),
        ("<https://x.io/?k=secret|x.io?k=secret>", "x.io"),
        ("<https://x.io/a#k=secret|x.io/a#k=secret (page)>", "x.io/a (page)"),
        ("<https://me:secret@x.io/a|me:secret@x.io/a>", "x.io/a"),
        ("<https://x.io/a?k=secret|is x.io/a ready?>", "is x.io/a ready?"),
    ],
)
def test_a_label_that_is_the_address_without_its_scheme_loses_the_query_too(token: str, expected: str) -> None:
    assert normalise_message({"text": token}, {}).text == expected


def test_the_text_of_a_link_element_is_such_a_label() -> None:
    link = {"type": "link", "url": "https://x.io/a?k=secret", "text": "x.io/a?k=secret"}
    section = {"type": "rich_text_section", "elements": [link]}
    message = {"text": "", "blocks": [{"type": "rich_text", "elements": [section]}]}
    assert normalise_message(message, {}).text == "x.io/a"
