"""What an executor does with partitions, without an executor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from jobs.config import load_config
from jobs.extract.extracted import CHUNK_ROW, REJECTED_ROW, TO_READ, to_read
from jobs.extract.partition_reader import reader
from jobs.pipeline import Pipeline
from jobs.sources import open_sources
from jobs.telemetry.progress import Progress
from tests.support.workspace import TEXTS, Workspace


def test_a_text_longer_than_this_engine_takes_goes_to_quarantine(tmp_path: Path) -> None:
    pipeline = Pipeline(load_config(Workspace(tmp_path / "ws", files=False).config), Progress())
    pipeline.state = pipeline.state.for_writing(1)  # which has a hash key
    chunking, (source,) = pipeline.chunking(), open_sources(pipeline.config)
    short = replace(chunking, max_bytes={**chunking.max_bytes, "text": 40})
    asked = [to_read(0, partition) for partition in source.listing().partitions]
    batches = pa.Table.from_pylist(asked, schema=TO_READ).to_batches()
    read = pa.Table.from_batches(reader([source], short, [])(iter(batches))).to_pylist()
    assert sorted(r["text"] for r in read if r["row"] == CHUNK_ROW) == sorted(t for t in TEXTS if len(t) <= 40)
    rejected = [(r["reason"], r["detail"]) for r in read if r["row"] == REJECTED_ROW]
    assert rejected == [("too_long", "text is longer than the index takes")] * sum(len(t) > 40 for t in TEXTS)
