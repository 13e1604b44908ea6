"""Publish: write planned rows with their stored vectors into the index, then into the ledger, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.frames import gathered, read_table
from jobs.inflight import noted
from jobs.state import State, write_part
from jobs.tables import PUBLISHED, TABLES
from jobs.vectors import unpack

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from indexers.base import Index


def prepare(spark: SparkSession, state: State, *, run_id: str, space_id: str, shard_rows: int) -> int:
    """Join the planned rows with their vectors into files of at most ``shard_rows``; returns rows that have none.

    A row without a vector is one whose text could not be encoded: it is in quarantine and is not published.
    """
    work = state.work(run_id)
    if not (work / "rows").exists():
        return 0
    rows = gathered(spark.read.parquet(str(work / "rows")))
    wanted = rows.select("team_id", "content_hash").distinct()
    vectors = (
        read_table(spark, state, "vectors", {"space_id": space_id})
        .join(wanted, on=["team_id", "content_hash"], how="left_semi")
        .dropDuplicates(["team_id", "content_hash"])  # two killed runs may both have stored it; the vectors are equal
        .select("team_id", "content_hash", "vector")
    )
    joined = rows.join(vectors, on=["team_id", "content_hash"], how="inner")
    joined.write.option("maxRecordsPerFile", shard_rows).parquet(str(work / "publish"), mode="overwrite")
    return _count(work / "rows") - _count(work / "publish")


def publish(
    index: Index, state: State, version: str, *, run_id: str, space_id: str, shard_rows: int,
    before_commit: Callable[[], None], stop: Callable[[], bool], progress: Callable[[int], None],
) -> tuple[int, int, bool]:  # fmt: skip
    """Carry out what ``prepare`` and the plan left in the work folder; ``stop`` is asked after each shard.

    Returns rows upserted, rows deleted, and whether that was all. Index first, ledger second, with a note of the shard
    before both: a crash between them repeats writes that change nothing.
    """
    work = state.work(run_id)
    upserted = deleted = 0
    stopped = False
    for shard in _shards(work / "publish", shard_rows):
        rows, ledger = _with_vectors(shard), _ledger(shard, version, space_id, run_id, delete=False)
        with noted(state, run_id, ledger):
            before_commit()
            refused = index.upsert(version, rows)
            if refused:
                # The newer version that stood there has left its source, and an older copy is what is desired now:
                # this run holds the lease, so it knows.
                before_commit()
                index.delete(version, refused)
                index.upsert(version, rows.filter(pc.is_in(rows["chunk_id"], pa.array(refused, pa.string()))))
            _record(state, ledger, shard["held"])
        upserted += len(shard)
        progress(len(shard))
        if stopped := stop():
            break
    for shard in () if stopped else _shards(work / "deletes", shard_rows):
        ledger = _ledger(shard, version, space_id, run_id, delete=True)
        with noted(state, run_id, ledger):
            before_commit()
            index.delete(version, shard["chunk_id"].to_pylist())
            state.merge("published", ledger)
        deleted += len(shard)
        progress(len(shard))
    if upserted or deleted:
        index.flush(version)
    return upserted, deleted, not stopped


def _with_vectors(shard: pa.Table) -> pa.Table:
    """The shard as an index takes it: its vectors as lists of numbers."""
    vectors = unpack(shard["vector"])
    ends = np.arange(len(shard) + 1, dtype=np.int32) * vectors.shape[1]
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors.reshape(-1)))
    return shard.set_column(shard.column_names.index("vector"), "vector", lists)


def _record(state: State, ledger: pa.Table, held: pa.ChunkedArray) -> None:
    """Rows that the ledger does not have are appended: a merge reads its whole target, and costs more as it grows."""
    new = ledger.filter(pc.invert(held)).drop_columns(["_delete"])
    if len(new):
        state.append("published", write_part(str(state.root), "published", new))
    if len(new) < len(ledger):
        state.merge("published", ledger.filter(held))


def _ledger(shard: pa.Table, version: str, space_id: str, run_id: str, *, delete: bool) -> pa.Table:
    size = len(shard)
    constant = {"index": version, "space_id": space_id, "run_id": run_id}
    columns = []
    for field in PUBLISHED:
        if field.name in constant:
            columns.append(pa.array([constant[field.name]] * size, field.type))
        elif field.name in shard.column_names:
            columns.append(shard[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(size, field.type))
    columns.append(pa.array([delete] * size, pa.bool_()))
    return pa.Table.from_arrays(columns, schema=TABLES["published"].changes)


def _count(folder: Path) -> int:
    return sum(int(pq.read_metadata(file).num_rows) for file in _files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _shards(folder: Path, rows: int) -> Iterator[pa.Table]:
    """Tables of about ``rows`` rows: small files of Spark's tasks are put together, large ones are read in pieces."""
    held: list[pa.RecordBatch] = []
    for file in _files(folder):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=rows):
            held.append(batch)
            if sum(len(b) for b in held) >= rows:
                yield pa.Table.from_batches(held)
                held = []
    if any(len(b) for b in held):
        yield pa.Table.from_batches(held)
