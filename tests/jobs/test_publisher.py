"""Rows of a shard of texts are published as soon as its vectors are stored, each with its own team's, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pytest

from embedding.records import CHUNK
from embedding.text.template import Template
from indexers.exact import ExactIndex
from jobs.publish.publisher import Publisher
from jobs.publish.row_writer import RowWriter, index_rows
from jobs.publish.shard_queue import ShardQueue
from jobs.state.parts import Part, write_part
from jobs.state.run_target import RunTarget
from jobs.state.store import State
from jobs.state.vector_column import pack
from tests.support.workspace import folder_of, stage

RUN, SPACE, VERSION, DIM = "run-1", "space", "messages__v1", 4


def rows(*which: tuple[str, int, str]) -> pa.Table:
    """Planned rows of (team, number, content hash), none of them in the ledger."""
    blank: dict[pa.DataType, object] = {pa.string(): "", pa.list_(pa.string()): [], pa.bool_(): False}
    values: dict[str, list[object]] = {field.name: [blank.get(field.type, 0)] * len(which) for field in CHUNK}
    values["team_id"] = [team for team, _, _ in which]
    values["chunk_id"] = [f"{team}/m/C1/{number}#0" for team, number, _ in which]
    values["doc_id"] = [f"{team}/m/C1/{number}" for team, number, _ in which]
    values["kind"] = ["message"] * len(which)
    values["content_hash"] = [content for _, _, content in which]
    table = pa.table(values, schema=CHUNK)
    return table.append_column("held", pa.array([False] * len(which)))


def vectors(*which: tuple[str, str, int]) -> pa.Table:
    """Vectors of (team, content hash): one at the axis that is given."""
    matrix = np.eye(DIM, dtype=np.float32)[[axis for _, _, axis in which]]
    teams, hashes = [team for team, _, _ in which], [content for _, content, _ in which]
    table = pa.table({"team_id": teams, "content_hash": hashes, "vector": pack(matrix)})
    for name, value in (("space_id", SPACE), ("run_id", RUN)):
        table = table.append_column(name, pa.array([value] * len(which)))
    return table


class Published:
    """A state, an index and what publishes into both."""

    def __init__(self, root: Path, planned: pa.Table, *, shard_rows: int = 2) -> None:
        self.state, self.index, self.told = State(root / "state", fence=1), ExactIndex(name="messages"), 0
        self.index.create_version(VERSION, space_id=SPACE, dim=DIM)
        stage(folder_of(self.state) / "work" / RUN / "rows", **{"shard=0": planned})
        target = RunTarget(self.state, VERSION, SPACE, RUN)
        writer = RowWriter.of(target, shard_rows, lambda: None)
        self.publisher = Publisher(self.index, target, writer, progress=self._tell)

    def _tell(self, count: int) -> None:
        self.told += count

    def store(self, table: pa.Table) -> list[Part]:
        parts = write_part(self.state.root, "vectors", table)
        self.state.append("vectors", parts)
        return parts

    def axes(self) -> dict[str, int]:
        """By chunk of the index the axis of its vector."""
        keys = [key for batch in self.index.scan(VERSION) for key in batch["chunk_id"].to_pylist()]
        return {key: int(vector.argmax()) for key, vector in self.index.fetch_vectors(VERSION, keys).items()}

    def ledger(self) -> list[str]:
        return sorted(self.state.read("published", ["chunk_id"])["chunk_id"].to_pylist())


def test_each_row_gets_the_vector_of_its_own_team_and_text(tmp_path: Path) -> None:
    planned = rows(("T1", 1, "same"), ("T2", 1, "same"), ("T1", 2, "other"), ("T1", 3, "same"), ("T2", 2, "fails"))
    published = Published(tmp_path, planned)
    parts = published.store(vectors(("T1", "same", 0), ("T2", "same", 1), ("T1", "other", 2)))
    assert len(parts) == 2, "a file for each team"
    assert published.publisher.publish_shard("shard=0", parts, lambda: False)
    assert published.axes() == {"T1/m/C1/1#0": 0, "T2/m/C1/1#0": 1, "T1/m/C1/2#0": 2, "T1/m/C1/3#0": 0}
    assert published.ledger() == sorted(published.axes())
    assert (published.publisher.upserted, published.told, published.publisher.left_out) == (4, 4, 1)


def test_what_rows_of_an_earlier_release_do_not_say_is_empty_and_private() -> None:
    """Their columns are null, as in a table that has grown."""
    chunk = rows(("T1", 1, "a")).append_column("vector", pack(np.eye(1, DIM, dtype=np.float32)))
    unsaid = ("author", "author_id", "thread_id", "title", "visibility", "mentions", "has_file", "language")
    for name in unsaid:
        chunk = chunk.set_column(chunk.column_names.index(name), name, pa.nulls(1, chunk.schema.field(name).type))
    (row,) = index_rows(chunk, Template.parse("{text}")).to_pylist()
    assert [row[name] for name in unsaid] == ["", "", "", "", "private", [], False, ""]


def test_a_shard_whose_texts_all_failed_publishes_nothing(tmp_path: Path) -> None:
    published = Published(tmp_path, rows(("T1", 1, "fails"), ("T1", 2, "too")))
    assert published.publisher.publish_shard("shard=0", [], lambda: False)
    assert published.axes() == {} and published.ledger() == [] and published.publisher.left_out == 2


def test_who_waits_is_let_in_after_the_rows_under_way(tmp_path: Path) -> None:
    published = Published(tmp_path, rows(*[("T1", n, "same") for n in range(6)]), shard_rows=2)
    parts = published.store(vectors(("T1", "same", 3)))
    assert not published.publisher.publish_shard("shard=0", parts, lambda: len(published.ledger()) >= 4)
    assert len(published.ledger()) == len(published.axes()) == 4


class Slow:
    """What publishes, held up until it is told to go on."""

    def __init__(self, work: Callable[[str], bool]) -> None:
        self.go_on, self.done, self._work = threading.Event(), list[str](), work

    def publish_shard(self, shard: str, parts: Sequence[Part], stop: Callable[[], bool]) -> bool:
        assert self.go_on.wait(20)
        going_on = self._work(shard)
        self.done.append(shard)
        return going_on

    def flush_ahead(self) -> None:
        self.done.append("flush")


def follow(slow: Slow) -> ShardQueue:
    return ShardQueue(cast(Publisher, slow), lambda: False, shards=5)


def test_encoding_does_not_wait_for_publishing_and_the_order_stays() -> None:
    slow = Slow(lambda shard: True)
    with follow(slow) as queue:
        for number in range(5):
            queue.enqueue(f"shard={number}", [])
        assert slow.done == [] and not queue.stopped()
        slow.go_on.set()
        assert queue.wait()
    in_order = [f"shard={number}" for number in range(5)]
    # What is left for the end, where nothing is encoded beside it, are the last shard's rows.
    assert slow.done == [*in_order[:3], "flush", in_order[3], "flush", in_order[4]]


def test_a_long_run_flushes_ahead_as_often_as_what_is_left_halves() -> None:
    slow = Slow(lambda shard: True)
    slow.go_on.set()
    with ShardQueue(cast(Publisher, slow), lambda: False, shards=100) as queue:
        for number in range(100):
            queue.enqueue(f"shard={number}", [])
        assert queue.wait()
    flushes = [place for place, done in enumerate(slow.done) if done == "flush"]
    assert [100 - place + number for number, place in enumerate(flushes)] == [50, 25, 12, 6, 3, 1]


def test_nothing_is_published_after_a_shard_that_failed() -> None:
    def work(shard: str) -> bool:
        if shard == "shard=1":
            raise OSError("no space left")
        return True

    slow = Slow(work)
    with follow(slow) as queue:
        for number in range(4):
            queue.enqueue(f"shard={number}", [])
        slow.go_on.set()
        with pytest.raises(OSError, match="no space left"):
            queue.wait()
        with pytest.raises(OSError, match="no space left"):
            queue.enqueue("shard=4", [])
    assert slow.done == ["shard=0"]


def test_nothing_is_published_after_giving_way() -> None:
    slow = Slow(lambda shard: shard != "shard=1")
    with follow(slow) as queue:
        for number in range(4):
            queue.enqueue(f"shard={number}", [])
        slow.go_on.set()
        assert not queue.wait() and queue.stopped()
    assert slow.done == ["shard=0", "shard=1"]
