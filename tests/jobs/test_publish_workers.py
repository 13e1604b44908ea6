"""Workers of Ray write rows into the index; killed, failing or overtaken ones leave it and the ledger in agreement."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.errors import LeaseHeldError, ResourceError
from embedding.text.template import BARE
from indexers import IndexAddress, Settings
from jobs.config import load_config
from jobs.engines.ray import start_ray
from jobs.publish.publisher import Publisher
from jobs.publish.row_writer import RowWriter
from jobs.publish.workers import PublishWorkers
from jobs.state.lease import Lease
from jobs.state.run_target import RunTarget
from jobs.state.store import State
from jobs.state.write_intents import recover_write_intents
from tests.jobs.test_publisher import RUN, SPACE, VERSION, rows, vectors
from tests.support.milvus_server import MilvusServer
from tests.support.workspace import Workspace, folder_of, message, stage

pytestmark = pytest.mark.slow
NO_LEASE = "the lease on this state was lost"


@dataclass(frozen=True)
class FolderIndex:
    """What stands for a server: it keeps the keys of each write in a file, and what happens at its first write."""

    folder: Path
    first: Callable[[Path], None]

    def upsert(self, version: str, rows: pa.Table) -> list[str]:
        if not (self.folder / "begun").exists():
            (self.folder / "begun").touch()
            self.first(self.folder)
        keys = rows["chunk_id"].to_pylist()
        (self.folder / f"{time.time_ns()}-{os.getpid()}").write_text("\n".join(keys))
        return []


@dataclass(frozen=True)
class FolderAddress(IndexAddress):
    """Where it is."""

    first: Callable[[Path], None] = lambda folder: None

    def open(self) -> FolderIndex:  # type: ignore[override]  # as much of an index as a worker needs
        return FolderIndex(Path(self.uri), self.first)


class Published:
    """A state that a lease is held of, an index in a folder, and what publishes into both by workers."""

    def __init__(self, root: Path, start: Callable[[], object], first: Callable[[Path], None], shards: int = 6) -> None:
        self.folder = root / "index"
        self.folder.mkdir()
        self.lease = Lease(State(root / "state").root, run_id=RUN, seconds=600)
        self.lease.__enter__()
        self.state, self.shards = State(root / "state", fence=self.lease.number), shards
        writer = RowWriter(self.state.root, VERSION, SPACE, RUN, BARE, 2, self.lease.proof.check)
        address = FolderAddress("folder", str(self.folder), "messages", Settings(), first)
        self.workers = PublishWorkers(start, address, writer, most=2)
        self.publisher = Publisher(
            FolderIndex(self.folder, first),  # type: ignore[arg-type]  # see there
            RunTarget(self.state, VERSION, SPACE, RUN),
            writer,
            progress=lambda count: None,
            writers=self.workers,
        )
        planned = {
            f"shard={shard}": rows(*[("T1", 10 * shard + n, f"text {shard}-{n}") for n in range(5)])
            for shard in range(shards)
        }
        stage(folder_of(self.state) / "work" / RUN / "rows", **planned)

    def publish(self) -> None:
        from jobs.state.parts import write_part

        for shard in range(self.shards):
            texts = vectors(*[("T1", f"text {shard}-{n}", 0) for n in range(4)])
            parts = write_part(self.state.root, "vectors", texts)
            self.state.append("vectors", parts)
            assert self.publisher.publish_shard(f"shard={shard}", parts, lambda: False)
        self.publisher.finish()

    def written(self) -> list[list[str]]:
        """The keys of each write, in order."""
        return [f.read_text().split("\n") for f in sorted(self.folder.iterdir()) if f.name != "begun"]

    def ledger(self) -> list[str]:
        held = self.state.read("published", ["chunk_id", "content_hash"]).to_pylist()
        return sorted(row["chunk_id"] for row in held if row["content_hash"])

    def records(self) -> list[Path]:
        return sorted((folder_of(self.state) / "work").glob("*.inflight"))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], object]]:
    folder = tmp_path_factory.mktemp("ray")
    config = load_config(Workspace(folder / "ws").config)
    yield lambda: start_ray(config, folder / "scratch")


def _nothing(folder: Path) -> None:
    pass


def _killed(folder: Path) -> None:
    os.kill(os.getpid(), 9)


def _refused(folder: Path) -> None:
    raise ResourceError("the index is full")


def _unexpected(folder: Path) -> None:
    raise ValueError("a text that nobody may read")


def _overtaken(folder: Path) -> None:
    """While a worker writes, another run takes the lease over."""
    (folder.parent / "state" / "lease.json").write_text('{"token": "of another run"}')


def expected(shards: int = 6) -> list[str]:
    return sorted(f"T1/m/C1/{10 * shard + n}#0" for shard in range(shards) for n in range(4))


def test_workers_write_the_rows_and_the_driver_the_ledger(tmp_path: Path, started: Callable[[], object]) -> None:
    published = Published(tmp_path, started, _nothing)
    published.publish()
    written = published.written()
    assert sorted(key for keys in written for key in keys) == published.ledger() == expected()
    assert max(map(len, written)) == 2, "pieces"
    assert (published.publisher.upserted, published.publisher.left_out) == (24, 6)
    assert published.records() == []
    assert not any(file.name.endswith(f"-{os.getpid()}") for file in published.folder.iterdir())


def test_a_killed_worker_is_begun_anew(tmp_path: Path, started: Callable[[], object]) -> None:
    published = Published(tmp_path, started, _killed)
    published.publish()
    assert published.ledger() == expected() and published.publisher.upserted == 24
    assert {key for keys in published.written() for key in keys} == set(expected())


def test_an_error_of_a_worker_is_raised_here_and_what_it_was_writing_stays_recorded(
    tmp_path: Path, started: Callable[[], object]
) -> None:
    published = Published(tmp_path, started, _refused)
    with pytest.raises(ResourceError, match="the index is full"):
        published.publish()
    published.publisher.close()
    recorded = {key for file in published.records() for key in pq.read_table(file)["chunk_id"].to_pylist()}
    taken = {key for keys in published.written() for key in keys}
    assert recorded and taken <= recorded | set(published.ledger()), "nothing is in the index that nobody knows of"
    recover_write_intents(published.state)
    cleared = published.state.read("published", ["chunk_id", "content_hash"]).to_pylist()
    assert {row["chunk_id"] for row in cleared if not row["content_hash"]} >= taken - set(published.ledger())


def test_what_an_unexpected_error_says_stays_in_the_worker(tmp_path: Path, started: Callable[[], object]) -> None:
    published = Published(tmp_path, started, _unexpected)
    with pytest.raises(Exception, match="unexpected ValueError") as raised:
        published.publish()
    published.publisher.close()
    assert "nobody may read" not in str(raised.value)


def test_a_worker_whose_run_was_overtaken_leaves_its_record_to_the_next(
    tmp_path: Path, started: Callable[[], object]
) -> None:
    published = Published(tmp_path, started, _overtaken, shards=1)
    with pytest.raises(LeaseHeldError, match=NO_LEASE):
        published.publish()
    assert published.ledger() == [] and len(published.written()) == 1
    (record,) = published.records()
    assert pq.read_table(record)["chunk_id"].to_pylist() == published.written()[0]


def test_a_run_and_a_build_into_a_server_by_workers_are_as_without(
    workspace: Workspace, milvus_server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several shards of texts, then rows whose vectors are stored; the driver writes no row."""
    from indexers.milvus.index import MilvusIndex

    monkeypatch.setattr("jobs.steps.WORKER_ROWS", 1)
    monkeypatch.setattr("jobs.embed.embed.embed_alone", None)  # called, it would raise: Ray is started anyway
    here: list[int] = []
    real = MilvusIndex.upsert

    def watched(index: MilvusIndex, version: str, given: pa.Table) -> Sequence[str]:
        here.append(0 if version.endswith("__read_back") else len(given))  # the server's proof
        return real(index, version, given)

    monkeypatch.setattr(MilvusIndex, "upsert", watched)
    workspace.day("general", [message(n, f"report {n} from desk {n % 13}") for n in range(120)])
    text = workspace.config.read_text().replace("[model]\n", "[model]\nshard_tokens = 200\n")
    workspace.config.write_text(text + f'[index]\nuri = "{milvus_server.uri}"\nname = "by_workers"\nshard_rows = 20\n')
    ran = workspace.run()
    assert ran.code == 0 and ran.body["index_rows"]["upserted"] == ran.body["index_rows"]["after"] > 120
    built = workspace.call("reindex")
    assert built.code == 0 and built.body["activated"] and built.body["chunks"]["embedded"] == 0
    assert built.body["index_rows"]["after"] == ran.body["index_rows"]["after"]
    assert set(here) == {0}, "of the driver only what comes before a first row"
    assert workspace.verify().code == 0
