"""Layered tables: what is read of rows, changes and folds is what a dict would hold, and costs what was changed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from embedding.errors import LeaseHeldError
from embedding.records import CHUNK
from jobs.state import table_files, table_rows
from jobs.state.folding import Folded
from jobs.state.old_files import erase_dropped
from jobs.state.parts import write_part
from jobs.state.store import State
from jobs.state.table_rows import TableRows
from jobs.state.tables import BUCKETS, TABLES, bucket_of
from jobs.state.team_rows import count_by_team, read_teams
from tests.support.canary import Canary, places
from tests.support.layered import CUT, TEAMS, Key, append, chunk, merge


def held(rows: TableRows) -> dict[Key, str]:
    table = rows.to_table(["team_id", "chunk_id", "text", "content_hash"])
    found = {(r["team_id"], r["chunk_id"]): r["text"] for r in table.to_pylist()}
    assert len(found) == len(table), "a key twice"
    assert table["text"].to_pylist() == table["content_hash"].to_pylist(), "columns of two rows in one"
    return found


class Killed(Exception):
    """The process has died."""


class Dying(State):
    """A state whose process dies when it commits what it has folded."""

    def _replace(self, name: str, done: Sequence[Folded]) -> None:
        raise Killed


def check(state: State, model: dict[Key, str], draw: random.Random) -> None:
    rows = state.dataset("chunks")
    assert held(rows) == model
    assert state.count("chunks") == rows.count_rows() == len(model)
    of_team = [key for key in model if key[0] == "T1"]
    read = read_teams(state, "chunks", ["T1"], ["chunk_id"])
    assert sorted(read["chunk_id"].to_pylist()) == sorted(chunk for _, chunk in of_team)
    assert state.distinct("chunks", ["team_id"]) == {(team,) for team, _ in model}
    text = draw.choice([*model.values(), "none"])
    assert state.count("chunks", pc.field("content_hash") == text) == sum(one == text for one in model.values())
    assert count_by_team(state, "chunks", {}) == {t: n for t in TEAMS if (n := sum(key[0] == t for key in model))}


Model = dict[Key, str]


def appended(state: State, model: Model, some: list[Key], text: str, draw: random.Random) -> Model:
    new = {key: text for key in some if key not in model}
    if new:
        append(state, new)
    return model | new


def merged(state: State, model: Model, some: list[Key], text: str, draw: random.Random) -> Model:
    gone = some[: draw.randint(0, 3)]
    merge(state, {key: text for key in some[len(gone) :]}, gone)
    model = model | {key: text for key in some[len(gone) :]}
    return {key: text for key, text in model.items() if key not in gone}


def dropped(state: State, model: Model, some: list[Key], text: str, draw: random.Random) -> Model:
    count = state.drop("chunks", f"chunk_id = '{some[0][1]}' AND cut = '{CUT}'")
    assert count == (some[0] in model)
    return {key: text for key, text in model.items() if key != some[0]}


def rows_dropped(state: State, model: Model, some: list[Key], text: str, draw: random.Random) -> Model:
    doomed = {chunk for team, chunk in some if team == some[0][0]}
    count = state.drop_rows("chunks", some[0][0], "chunk_id", doomed)
    assert count - sum((some[0][0], chunk) in model for chunk in doomed) in (0, 1), "another cut has a row of the key"
    return {key: text for key, text in model.items() if key[0] != some[0][0] or key[1] not in doomed}


def folded(state: State, model: Model, some: list[Key], text: str, draw: random.Random) -> Model:
    groups = state.groups("chunks")
    state.fold("chunks", draw.sample(groups, draw.randint(0, len(groups))), join=draw.choice([2, 1_000]))
    return model


def killed(state: State, model: Model, some: list[Key], text: str, draw: random.Random) -> Model:
    """What it had written stays below the table, and is not committed."""
    dying = Dying(state.root, cut=CUT, fence=1)
    with pytest.raises(Killed):
        dying.fold("chunks")
    write_part(state.root, "chunks", pa.Table.from_pylist([chunk(some[0], text)], CHUNK), CUT)
    return model


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_done_in_whatever_order_readers_see_what_a_dict_would_hold(tmp_path: Path, seed: int) -> None:
    """Also one that opened the table before, and where a process died before what it had written was committed."""
    draw = random.Random(seed)
    state, model = State(tmp_path, cut=CUT, fence=1), dict[Key, str]()
    other = State(tmp_path, cut="c2", fence=1)
    keys = [(team, f"{team}/{n}") for team in TEAMS for n in range(6)]
    opened: list[tuple[TableRows, dict[Key, str]]] = []
    merge(other, {keys[0]: "of another cut"})
    for step in range(16):
        opened.append((state.dataset("chunks"), dict(model)))
        some = draw.sample(keys, draw.randint(1, 8))
        what = draw.choice([appended, merged, merged, merged, dropped, rows_dropped, folded, killed])
        model = what(state, model, some, f"{step}", draw)
        check(state, model, draw)
    for rows, then in opened:
        assert held(rows) == then
    state.fold("chunks", state.groups("chunks"), join=2)
    assert not any(group.changes for group in state.groups("chunks"))
    check(state, model, draw)
    erase_dropped(state, "chunks")
    check(state, model, draw)
    assert len(list((tmp_path / "chunks").rglob("part-*.parquet"))) == len(state.every_cut().files("chunks"))
    assert held(other.dataset("chunks")).keys() <= {keys[0]}


def test_a_change_costs_what_it_is_and_opens_no_file_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {("T1", f"{n}"): "text" for n in range(5_000)})
    before = set(state.files("chunks"))
    with monkeypatch.context() as patched:
        patched.setattr(table_rows, "data_of", lambda *_: pytest.fail("read"))
        patched.setattr(table_files, "data_of", lambda *_: pytest.fail("read"))
        merge(state, {("T1", "7"): "other"}, [("T1", "8")])
    [added] = set(state.files("chunks")) - before
    [group] = state.groups("chunks")
    assert before < set(state.files("chunks")) and group.rows(changes=True) == 2
    assert Path(added).stat().st_size < Path(*before).stat().st_size
    assert state.count("chunks") == 4_999


def test_a_fold_leaves_files_that_hold_no_changed_row(tmp_path: Path) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {("T1", "a"): "1"})
    append(state, {("T1", "b"): "1"})
    before = set(state.files("chunks"))
    merge(state, {("T1", "b"): "2"})
    state.fold("chunks")
    assert len(before & set(state.files("chunks"))) == 1 and len(state.files("chunks")) == 2


def test_the_number_of_files_does_not_grow_with_the_number_of_teams(tmp_path: Path) -> None:
    counts = {}
    for teams in (1, 200):
        state = State(tmp_path / f"{teams}", cut=CUT, fence=1)
        for run in range(3):
            append(state, {(f"T{n % teams}", f"{run}/{n}"): "text" for n in range(1_000)})
        merge(state, {(f"T{n % teams}", f"0/{n}"): "other" for n in range(500)})
        counts[teams] = len(state.files("chunks"))
        assert state.count("chunks") == 3_000
    assert counts[1] == 4 and counts[200] <= 4 * BUCKETS


def test_a_team_is_read_from_the_row_groups_that_may_hold_it(tmp_path: Path) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    first, second = [f"T{n}" for n in range(100) if bucket_of(f"T{n}") == "03"][:2]
    append(state, {(first, f"{n}"): "text" for n in range(30_000)} | {(second, "only"): "text"})
    [group] = state.groups("chunks")
    [file] = group.base
    assert (file.lowest["team_id"], file.highest["team_id"]) == tuple(sorted((first, second)))
    fragment = next(table_files.data_of(tmp_path / "chunks", "chunks", [file]).get_fragments())
    found = fragment.subset(filter=pc.field("team_id") == first, schema=TABLES["chunks"].stored).row_groups
    assert len(found) == 2 and fragment.metadata.num_row_groups == 2
    last = fragment.subset(filter=pc.field("team_id") == second, schema=TABLES["chunks"].stored).row_groups
    assert len(last) == 1
    assert read_teams(state, "chunks", [second], ["chunk_id"]).to_pylist() == [{"chunk_id": "only"}]


def test_rows_are_appended_under_a_number_of_their_own(tmp_path: Path) -> None:
    """Else a removal of the same key that is older would hide them."""
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {("T1", "a"): "1"})
    merge(state, {}, [("T1", "a")])
    table = pa.Table.from_pylist([chunk(("T1", "a"), "2")], schema=CHUNK)
    with pytest.raises(ValueError, match="next_seq"):
        state.append("chunks", write_part(tmp_path, "chunks", table, CUT))
    append(state, {("T1", "a"): "2"})
    assert held(state.dataset("chunks")) == {("T1", "a"): "2"}
    state.fold("chunks")
    assert held(state.dataset("chunks")) == {("T1", "a"): "2"}


def test_some_columns_are_changed_of_rows_that_are_there(tmp_path: Path) -> None:
    """As ``write_intents`` clears hashes: a row keeps what else it has, also where it was to be deleted."""
    state = State(tmp_path, fence=1)

    def row(chunk: str, run: str, *, gone: bool = False) -> dict[str, object]:
        return {"index": "v1", "team_id": "T1", "chunk_id": chunk, "content_hash": "h", "run_id": run, "_delete": gone}

    state.change("published", [row("a", "r1"), row("b", "r1"), row("c", "r1")])
    given = [row("a", "r2"), row("b", "r2", gone=True), row("d", "r2"), row("e", "r2", gone=True)]
    cleared = [one | {"content_hash": ""} for one in given]
    rows = pa.Table.from_pylist(cleared, schema=TABLES["published"].changes)
    state.merge("published", rows, only=["content_hash"])
    read = state.read("published", ["chunk_id", "content_hash", "run_id"]).to_pylist()
    assert sorted(tuple(r.values()) for r in read) == [
        ("a", "", "r1"),
        ("b", "", "r1"),
        ("c", "h", "r1"),
        ("d", "", "r2"),
    ]


@pytest.mark.parametrize("kind", ["edited", "deleted", "edited and folded"])
def test_the_bytes_of_replaced_and_removed_rows_go_with_a_purge(tmp_path: Path, kind: str) -> None:
    state, canary, stays = State(tmp_path, cut=CUT, fence=1), Canary(), Canary()
    append(state, {("T1", "a"): canary.text, ("T1", "b"): "text", ("T2", "c"): stays.text})
    merge(state, {("T1", "b"): f"{canary.text} said again"})
    merge(state, {("T1", "b"): "harmless"}, [("T1", "a")] if kind == "deleted" else [])
    if kind == "edited and folded":
        state.fold("chunks")
    found = places({"canary": canary}, tmp_path)["canary"]
    assert found and not [where for where in found if "_delta_log" in where]
    assert state.drop_rows("chunks", "T1", "chunk_id", ["a"]) == (kind != "deleted")
    erase_dropped(state, "chunks")
    assert set(places({"canary": canary, "stays": stays}, tmp_path)) == {"stays"}
    assert held(state.dataset("chunks")) == {("T1", "b"): "harmless", ("T2", "c"): stays.text}
    assert b'"a"' not in b"".join(f.read_bytes() for f in (tmp_path / "chunks" / "_delta_log").glob("*.json"))


def test_a_late_holder_of_the_lease_folds_nothing(tmp_path: Path) -> None:
    late, later = State(tmp_path, cut=CUT, fence=1), State(tmp_path, cut=CUT, fence=2)
    append(late, {("T1", "a"): "1"})
    merge(late, {("T1", "a"): "2"})
    later.raise_fence()
    before = late.files("chunks")
    with pytest.raises(LeaseHeldError):
        late.fold("chunks")
    with pytest.raises(LeaseHeldError):
        late.drop_rows("chunks", "T1", "chunk_id", ["a"])
    assert late.files("chunks") == before
