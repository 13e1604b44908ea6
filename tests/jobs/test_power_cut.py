"""What was acknowledged survives a loss of power: commits of every kind, small files, whole runs, and removals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest

from embedding.atomic_file import replace_file
from jobs.commands.purge import purge
from jobs.commands.run import run
from jobs.commands.verify import verify
from jobs.scope import Scope
from jobs.state.parts import write_part
from jobs.state.store import State
from tests.jobs.test_publisher import vectors
from tests.support.in_process import open_pipeline, without_ray
from tests.support.power import Disk
from tests.support.workspace import START, TEAM, Workspace, folder_of, message


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    if disk.why_not:
        pytest.skip(disk.why_not)
    yield disk
    disk.unmount()


def opened(disk: Disk) -> State:
    return State(disk.mounted / "state", fence=1, cut="c1")


def append(state: State, *texts: str) -> None:
    table = vectors(*[("T1", text, 0) for text in texts])
    state.append("vectors", write_part(state.root, "vectors", table))


def read_partition(state: State, name: str, *, gone: bool = False) -> None:
    row = {"source_id": "s", "partition": name, "fingerprint": "x", "reader": "r", "refs": [], "refs_hash": ""}
    more = {"overlaps": [], "retry": False, "documents": 1, "run_id": "r", "_delete": gone}
    state.change("sources", [row | more])


def contents(state: State) -> dict[str, list[object]]:
    return {
        "vectors": sorted(state.read("vectors", ["content_hash"])["content_hash"].to_pylist()),
        "sources": sorted(state.read("sources", ["partition"])["partition"].to_pylist()),
        "files": sorted(str(f.relative_to(folder_of(state))) for f in folder_of(state).rglob("*") if f.is_file()),
    }


def no_more(state: State) -> None:
    """Nothing on top of what each test has committed."""


def many(state: State) -> None:
    """Enough commits for deltalake to write a checkpoint of its own."""
    for n in range(120):
        append(state, f"text {n}")


def merged(state: State) -> None:
    read_partition(state, "a", gone=True)
    read_partition(state, "c")


def dropped(state: State) -> None:
    state.drop("vectors", "content_hash = 'text a'")


def removed(state: State) -> None:
    state.drop_rows("vectors", "T1", "content_hash", {pc.min(state.read("vectors")["content_hash"]).as_py()})
    state.vacuum("vectors", hours=0)


def checkpointed(state: State) -> None:
    state.set_properties("sources", {"delta.logRetentionDuration": "interval 0 seconds"})
    read_partition(state, "d")
    state.checkpoint("sources")


def made_anew(state: State) -> None:
    state.make_anew("sources")
    read_partition(state, "e")


@pytest.mark.parametrize("commit", [no_more, many, merged, dropped, removed, checkpointed, made_anew])
def test_what_was_committed_is_there(disk: Disk, commit: Callable[[State], None]) -> None:
    state = opened(disk)
    append(state, "text a", "text b")
    read_partition(state, "a")
    read_partition(state, "b")
    commit(state)
    before = contents(state)
    disk.cut_power()
    assert contents(opened(disk)) == before


def test_a_small_file_is_there(disk: Disk) -> None:
    replace_file(disk.mounted / "kept", b"one")
    replace_file(disk.mounted / "kept", b"two")
    disk.cut_power()
    assert (disk.mounted / "kept").read_bytes() == b"two"


def test_a_run_that_ended_has_nothing_to_do_again_and_what_was_purged_stays_so(disk: Disk, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "ws", files=False)
    space.config.write_text(space.config.read_text() + f'[state]\nuri = "{disk.mounted}/state"\n')
    space.day("general", [message(n, text) for n, text in enumerate(["first", "the canary sings", "last"])])
    with without_ray():
        assert run(open_pipeline(space.config), Scope()).status == "ok"
        disk.cut_power()
        again = run(open_pipeline(space.config), Scope())
        assert (again.plan.embed, again.plan.reuse, again.upserted, again.extracted.read) == (0, 0, 0, 0)
        assert verify(open_pipeline(space.config), Scope()).status == "ok"
        canary = f"{TEAM}/m/C1/{START + 1}.000100"
        purge(open_pipeline(space.config), team=TEAM, channel="", ids=[canary], before=None)
        disk.cut_power()
        pipeline = open_pipeline(space.config)
        assert not any("canary" in text for text in pipeline.state.read("chunks", ["text"])["text"].to_pylist())
        assert not [f for f in folder_of(pipeline.state).rglob("*") if f.is_file() and b"canary" in f.read_bytes()]
