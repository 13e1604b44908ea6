"""After a purge a text's bytes are in no file of the state and of the index, old versions and killed runs included.

A receipt says what went from where, and where the server removes its old files by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from embedding.errors import ResourceError
from embedding.ids import hashed_id
from indexers.milvus.index import MilvusIndex
from jobs.state.parts import write_part
from jobs.state.store import State
from jobs.state.tables import TABLES
from tests.support.blank import nothing
from tests.support.canary import Canary, places
from tests.support.milvus_server import PYTHON, MilvusServer
from tests.support.workspace import TEAM, Workspace, folder_of, message, writing

pytestmark = pytest.mark.usefixtures("encoder_here")

NAMES = ("in a message", "in a file", "before the edit", "of a killed run", "in scratch", "in the engines' log")
STAYS = "stays"
SAID, EDITED, FILE = "T01/m/C1/1740960000.000100", "T01/m/C1/1740960001.000100", "T01/f/notes.txt"


@pytest.fixture
def canaries() -> dict[str, Canary]:
    return {name: Canary() for name in (*NAMES, STAYS)}


def fill(space: Workspace, canaries: dict[str, Canary]) -> None:
    """Two runs, so that old versions hold texts too, and what a killed run leaves."""

    def text(name: str) -> str:
        return f"this is {canaries[name].text} indeed"

    (space.files / "notes.txt").write_text(text("in a file"))
    space.day("random", [message(9, text(STAYS))])
    space.day("general", [message(0, text("in a message")), message(1, text("before the edit"))])
    assert space.run().code == 0
    edited = message(1, "harmless") | {"edited": {"user": "U1", "ts": "1740960100.000000"}}
    space.day("general", [message(0, text("in a message")), edited])
    assert space.run().code == 0
    state = State(space.root / "state")
    row = dict.fromkeys(TABLES["chunks"].schema.names) | {
        "team_id": TEAM,
        "chunk_id": "x#0",
        "text": text("of a killed run"),
    }
    lost = pa.Table.from_pylist([row], schema=pa.schema([f.with_nullable(True) for f in TABLES["chunks"].schema]))
    write_killed(state, lost)
    scratch = folder_of(state) / "work" / "a-killed-run"
    scratch.mkdir(parents=True)
    (scratch / "texts.txt").write_text(text("in scratch"))
    with state.engine_log.open("a") as log:
        log.write(text("in the engines' log"))


def write_killed(state: State, rows: pa.Table) -> None:
    """A file below the table that was never committed."""
    filled = [
        rows[f.name] if rows[f.name].null_count == 0 else pa.array([nothing(f.type)] * len(rows), f.type)
        for f in TABLES["chunks"].schema
    ]
    assert write_part(state.root, "chunks", pa.Table.from_arrays(filled, schema=TABLES["chunks"].schema), cut="old")


def storage(space: Workspace) -> Path:
    """The state without the scratch of this very process, whose Spark other tests share."""
    return space.root / "state"


def gone(canaries: dict[str, Canary], *roots: Path) -> dict[str, set[str]]:
    found = places({name: canaries[name] for name in NAMES}, *roots)
    left = {name: {w for w in where if "/engines-" not in w} for name, where in found.items()}
    return {name: where for name, where in left.items() if where}


@pytest.fixture
def purged(workspace: Workspace, canaries: dict[str, Canary]) -> Iterator[Workspace]:
    fill(workspace, canaries)
    before = places(canaries, storage(workspace))
    assert set(before) == set(canaries), "what is not there cannot be seen to go"
    assert any("milvus.db" in where for where in before["in a message"])
    yield workspace


def test_after_a_purge_no_file_holds_a_byte_of_it(
    encoder_on_ray: None, purged: Workspace, canaries: dict[str, Canary]
) -> None:
    receipt = purged.call("purge", "--team", TEAM, "--ids", f"{SAID},{EDITED}", "--ids", FILE)
    assert receipt.code == 0, receipt
    assert gone(canaries, storage(purged)) == {}
    body = receipt.body
    # One vector more than documents: that of the text before the edit.
    assert body["removed"] == {"vectors": 4, "chunks": 3, "index": 3, "ledger": 3, "quarantine": 0, "removals": 0}
    key = (purged.root / "state" / "hash.key").read_bytes()
    assert body["documents"]["hashed_ids"] == sorted(hashed_id(key, one) for one in (SAID, EDITED, FILE))
    assert body["documents"]["count"] == 3 and SAID not in str(body)
    assert body["storage"]["index"] == {"messages__v1": "removed"}
    assert body["storage"]["tables"]["files"] > 3 and body["storage"]["engines.log"] == {"state": "removed"}
    assert body["storage"]["scratch"]["folders"] == 1
    kept = [r for r in State(purged.root / "state").read("runs").to_pylist() if r["command"] == "purge"]
    assert body["documents"]["digest"] in kept[0]["report"]
    assert any(STAYS in name for name in places({STAYS: canaries[STAYS]}, storage(purged)))
    assert purged.verify().code == 0

    purged.day("general", [*purged.messages("general"), message(7, "a new message beside them")])
    (purged.files / "notes.txt").chmod(0o640)  # changed, so it is read again, and not a newer version
    again = purged.run()
    assert again.code == 0 and again.body["documents"]["skipped"]["purged"] >= 2
    left = gone(canaries, storage(purged))
    assert left == {}, "the next run brought it back while its source holds it"
    assert purged.verify().code == 0


def test_a_purge_that_failed_half_way_is_finished_by_the_same_command(
    purged: Workspace, canaries: dict[str, Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ResourceError("the index is away")

    command = ("purge", "--team", TEAM, "--channel", "C1")
    with monkeypatch.context() as patched:
        patched.setattr(MilvusIndex, "delete", away)
        assert purged.call(*command).code == 1
    done = purged.call(*command)
    assert done.code == 0 and done.body["removed"]["index"] == done.body["removed"]["ledger"] == 2
    rest = purged.call("purge", "--team", TEAM, "--ids", FILE)
    assert rest.code == 0
    assert gone(canaries, storage(purged)) == {}
    assert State(purged.root / "state").count("vectors") == purged.call("status").body["tables"]["chunks"]


def test_rows_that_only_the_index_knows_are_purged_too(purged: Workspace, canaries: dict[str, Canary]) -> None:
    """A run that was killed between index and ledger, of a message that was deleted then."""
    state = writing(State(purged.root / "state"))
    for table in ("published", "chunks"):
        state.drop(table, "team_id = 'T01'")
    receipt = purged.call("purge", "--team", TEAM, "--channel", "C1")
    assert receipt.body["removed"]["index"] == 2 and receipt.body["documents"]["count"] == 2
    hits = purged.call("search", "harmless", "--team", TEAM).body["hits"]
    assert {hit["channel_id"] for hit in hits} == {"C2", ""}


@pytest.mark.long
def test_a_milvus_server_s_files_are_left_to_it_and_the_receipt_says_so(
    workspace: Workspace, canaries: dict[str, Canary], tmp_path: Path
) -> None:
    if not PYTHON.exists():
        pytest.skip("no Milvus server; `make test` makes it")
    server = MilvusServer(tmp_path / "server")
    try:
        with workspace.config.open("a") as config:
            config.write(f'[index]\nuri = "{server.uri}"\n')
        fill(workspace, canaries)
        receipt = workspace.call("purge", "--team", TEAM, "--channel", "C1").body
        assert receipt["storage"]["index"] == {"messages__v1": "left to the server"}
        assert receipt["removed"]["index"] == 2
        hits = workspace.call("search", "this is indeed", "--team", TEAM).body["hits"]
        assert {hit["channel_id"] for hit in hits} == {"C2", ""}
        purged = {name: canaries[name] for name in NAMES if name != "in a file"}
        assert not {w for where in places(purged, storage(workspace)).values() for w in where if "/engines-" not in w}
    finally:
        server.stop()
    left = places(canaries, tmp_path / "server")
    print("left in the server's files:", {name: len(where) for name, where in left.items()})
    assert set(left) <= {"in a message", "in a file", "before the edit", STAYS}
