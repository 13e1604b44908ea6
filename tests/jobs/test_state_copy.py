"""`embedmill state copy`: a state moves between a folder and a store, without encoding, and only one place of it runs."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.state import copying, storage
from jobs.state.object_path import ObjectPath
from jobs.state.state_folder import MARKER
from jobs.state.storage import StatePath, sizes_below
from jobs.state.store import State
from tests.support.in_process import Killed
from tests.support.object_store import Weed
from tests.support.workspace import TEAM, Workspace, counts

pytestmark = pytest.mark.usefixtures("encoder_here")


class Moving:
    """A workspace whose state is in a folder, and a place in a store to move it to."""

    def __init__(self, space: Workspace, weed: Weed) -> None:
        self.space, prefix = space, f"moved/{uuid.uuid4().hex}"
        self.folder: StatePath = space.root / "state"
        self.prefix: ObjectPath = weed.path(prefix)
        self._text = space.config.read_text() + '[index]\nuri = "milvus.db"\n' + weed.config(prefix)
        (space.root / "state" / "milvus.db").rename(space.root / "milvus.db")
        self.use("state")

    def use(self, uri: str) -> None:
        """Have the configuration name a place."""
        self.space.config.write_text(self._text.replace(f'uri = "{self.prefix}"', f'uri = "{uri}"'))


@pytest.fixture
def moving(ran: Workspace, weed: Weed) -> Iterator[Moving]:
    yield Moving(ran, weed)


def contents(root: StatePath) -> dict[str, list[str]]:
    state = State(root)
    names = {"chunks": ["chunk_id", "content_hash"], "vectors": ["content_hash"], "published": ["chunk_id"]}
    return {name: sorted(map(repr, state.read(name, columns).to_pylist())) for name, columns in names.items()}


def test_there_and_back_nothing_is_encoded_and_one_place_runs(moving: Moving) -> None:
    space, before = moving.space, contents(moving.folder)
    moved = space.call("state", "copy", "state", str(moving.prefix))
    assert moved.code == 0 and moved.body["to"] == str(moving.prefix) and moved.body["copied"] > 10, moved
    refused = space.run()
    assert refused.code == 2 and f"was moved to {moving.prefix}" in refused.err, refused
    assert contents(moving.prefix) == before
    moving.use(str(moving.prefix))
    assert counts(space.run()) == {} and space.verify().code == 0
    space.day("general", space.messages("general")[1:])
    assert counts(space.run()) == {"deleted": 1}
    back = space.call("state", "copy", str(moving.prefix), "state")
    assert back.code == 0, back
    assert space.run().code == 2
    moving.use("state")
    assert counts(space.run()) == {} and space.verify().code == 0
    assert contents(moving.folder)["chunks"] == [row for row in before["chunks"] if "C1/1740960000" not in row]


@pytest.mark.parametrize("at", [0, 7, -1, -2])
def test_killed_half_way_it_is_simply_run_again(moving: Moving, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    space, before, done = moving.space, contents(moving.folder), 0
    copy_file, mark = storage.copy_file, copying._mark

    def dies(source: StatePath, target: StatePath) -> None:
        nonlocal done
        if done == at:
            raise Killed
        done += 1
        copy_file(source, target)

    def dies_at_the_end(root: StatePath, said: dict[str, object]) -> None:
        if "moved" in said if at == -1 else not {"moved", "copying"} & said.keys():
            raise Killed
        mark(root, said)

    if at >= 0:
        monkeypatch.setattr("jobs.state.copying.copy_file", dies)
    else:
        monkeypatch.setattr(copying, "_mark", dies_at_the_end)
    with pytest.raises(Killed):
        space.call("state", "copy", "state", str(moving.prefix))
    monkeypatch.undo()
    moving.use(str(moving.prefix))
    refused = space.run()
    assert refused.code == 2 and "is an unfinished copy" in refused.err, refused
    moving.use("state")
    assert space.run().code == (2 if at == -2 else 0), "the state goes on where it was, until it is left"
    again = space.call("state", "copy", "state", str(moving.prefix))
    assert again.code == 0, again
    assert contents(moving.prefix) == before
    moving.use(str(moving.prefix))
    assert counts(space.run()) == {} and space.verify().code == 0


def test_repeated_when_it_is_done_it_changes_nothing(moving: Moving) -> None:
    space = moving.space
    assert space.call("state", "copy", "state", str(moving.prefix)).code == 0
    moving.use(str(moving.prefix))
    space.day("general", space.messages("general")[1:])
    assert counts(space.run()) == {"deleted": 1}
    purged = space.call("purge", "--team", TEAM, "--channel", "C2")
    assert purged.code == 0
    after = contents(moving.prefix)
    again = space.call("state", "copy", "state", str(moving.prefix))
    assert (again.code, again.body["copied"]) == (0, 0), again
    assert contents(moving.prefix) == after and counts(space.run()) == {} and space.verify().code == 0


def test_what_a_killed_run_was_writing_is_not_left_behind(moving: Moving) -> None:
    assert isinstance(moving.folder, Path)
    (moving.folder / "work").mkdir(exist_ok=True)
    (moving.folder / "work" / "r-0.inflight").write_bytes(b"rows")
    refused = moving.space.call("state", "copy", "state", str(moving.prefix))
    assert refused.code == 2 and "run `embedmill run` there first" in refused.err, refused
    assert not sizes_below(moving.prefix)


def test_files_of_a_copy_in_a_folder_are_private(moving: Moving) -> None:
    before = os.umask(0)
    try:
        assert moving.space.call("state", "copy", "state", "elsewhere").code == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o077 for path in (moving.space.root / "elsewhere").rglob("*.key")}
    assert modes == {"hash.key": 0}


def test_an_index_that_lies_in_the_former_place_is_said(moving: Moving) -> None:
    inside = moving.space.config.read_text().replace('uri = "milvus.db"', 'uri = "state/milvus.db"')
    moving.space.config.write_text(inside)
    assert moving.space.call("state", "copy", "state", str(moving.prefix)).body["index_inside"]


def test_what_is_no_copy_of_it_is_left_alone(moving: Moving) -> None:
    (moving.prefix / "report.csv").write_bytes(b"1")
    refused = moving.space.call("state", "copy", "state", str(moving.prefix))
    assert refused.code == 2 and "not empty" in refused.err, refused
    other = moving.prefix.parent / uuid.uuid4().hex
    State(other, fence=1).change("runs", [{"run_id": "another", "_delete": False}])
    refused = moving.space.call("state", "copy", "state", str(other))
    assert refused.code == 2 and "no unfinished copy of" in refused.err, refused
    assert moving.space.run().code == 0
    for source, target, says in (
        ("nowhere", str(moving.prefix), "holds no whole state"),
        ("state", "state", "same place"),
        ("state", "gs://x/y", "TO: gs:// is not supported; give a folder, or s3://bucket/prefix"),
    ):
        refused = moving.space.call("state", "copy", source, target)
        assert refused.code == 2 and says in refused.err, refused


def test_a_copy_that_does_not_read_is_not_taken(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_file = storage.copy_file

    def flips(source: StatePath, target: StatePath) -> None:
        copy_file(source, target)
        if "vectors" in str(target) and target.name.endswith(".parquet"):
            data = target.read_bytes()
            target.write_bytes(data[:-20] + b"damaged!" + data[-12:])

    monkeypatch.setattr("jobs.state.copying.copy_file", flips)
    refused = moving.space.call("state", "copy", "state", str(moving.prefix))
    assert refused.code != 0 and "vectors" in refused.err, refused
    assert "copying" in json.loads((moving.prefix / MARKER).read_text())
    assert moving.space.run().code == 0, "the state goes on where it was"


def test_scratch_lease_and_index_stay(moving: Moving) -> None:
    assert isinstance(moving.folder, Path)
    (moving.folder / "work" / "a-run").mkdir(parents=True)
    (moving.folder / "work" / "a-run" / "texts").write_text("a text")
    assert moving.space.call("state", "copy", "state", str(moving.prefix)).code == 0
    there = {path.split("/")[0] for path in sizes_below(moving.prefix)}
    assert not there & {"work", "milvus.db", "lease.json"} and {"chunks", "hash.key", "state.id"} <= there
    assert moving.space.call("search", "lockers", "--team", TEAM).code == 2, "also a reader is told where it is"
