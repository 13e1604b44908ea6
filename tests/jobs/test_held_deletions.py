"""What may be concluded from a reading in which something could not be read. No engine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from embedding.chunking import ChunkLimits
from jobs.bodies.answers import StatusBody
from jobs.cli import render
from jobs.config import load_config
from jobs.extract.changes import choose_partitions
from jobs.extract.cutting import Chunking
from jobs.extract.held_deletions import HeldBack, Kept, drop_held, held_back, held_back_columns, judge, without
from jobs.maintenance.erase import Target, _drop_removals
from jobs.maintenance.rebuild import _read_all_again
from jobs.pipeline import Pipeline
from jobs.scope import Scope
from jobs.state.lease import Lease
from jobs.state.parts import write_part
from jobs.state.store import State
from jobs.state.tables import BASE, TABLES, bucket_of
from jobs.telemetry.progress import Progress
from tests.support.command_line import invoke
from tests.support.events import Stories, Told, text
from tests.support.tables import write_lines
from tests.support.workspace import TEAM, TEXTS, Workspace, writing

ROW: Any = {  # of a SourceRow what is looked at here
    "digests": ["d1"],
    "suspects": [],
    "held": None,
    "held_back": None,
    "unlisted": None,
    "unlisted_since": None,
}


def reject(reason: str, **more: Any) -> Any:
    return {"reason": reason, "doc_id": "", "digest": "", "whole": False, "ignored": False, **more}


def test_what_could_all_be_read_covers_its_partition() -> None:
    found = judge(None, True, [])
    assert found.covered and not found.holds


def test_a_named_document_is_spared_alone() -> None:
    found = judge(ROW, True, [reject("too_long", doc_id="x")])
    assert found.covered and dict(found.named) == {"x": "too_long"}


def test_a_record_that_was_there_before_spares_nothing() -> None:
    found = judge(ROW, True, [reject("missing_ts", digest="d1")])
    assert found.covered and not found.holds


def test_a_new_record_spares_all_that_is_missing_and_then_just_that() -> None:
    new = [reject("missing_ts", digest="d1"), reject("missing_ts", digest="d2")]
    first = judge(ROW, True, new)
    assert not first.covered and first.suspects == ("d2",) and first.reason == "missing_ts"
    row: Any = held_back_columns(ROW, first, True, [Kept("missing_ts", 1, ("x",), ("x",))], (), now=7)
    second = judge(row, True, new)
    assert second.covered and second.waiting == {"x"}
    mended = judge(row, True, new[:1])
    assert mended.covered and not mended.holds, "the suspect has gone"


def test_the_same_bytes_twice_are_two_records() -> None:
    assert not judge(ROW, True, [reject("missing_ts", digest="d1")] * 2).covered


def test_of_a_partition_that_was_not_read_to_its_end_nothing_is_learnt() -> None:
    found = judge(ROW, False, [reject("bad_json", whole=True), reject("missing_ts", digest="d9")])
    assert (found.covered, found.reason, found.digests) == (False, "bad_json", ("d1",))


def test_a_record_without_a_digest_may_be_anything_and_is_no_whole_reading() -> None:
    assert judge(ROW, False, [reject("odd")]).reason == "odd"


def test_what_is_ignored_counts_for_nothing() -> None:
    found = judge(ROW, True, [reject("unsupported_type", ignored=True, whole=True, doc_id="x")])
    assert found.covered and not found.holds


def test_a_row_that_an_earlier_version_wrote_makes_every_record_new() -> None:
    found = judge(cast(Any, dict.fromkeys(ROW)), True, [reject("missing_ts", digest="d1")])
    assert not found.covered


def test_since_is_the_first_time_and_what_is_decided_elsewhere_is_let_go() -> None:
    judged = judge(ROW, True, [reject("missing_ts", digest="d2")])
    first = ROW | held_back_columns(ROW, judged, True, [Kept("missing_ts", 2, ("x", "y"), ("x", "y"))], (), now=7)
    again = first | held_back_columns(
        first, judge(first, True, []), True, [Kept("missing_ts", 1, ("x",), ("x",))], (), now=9
    )
    assert json.loads(again["held_back"])["missing_ts"] == {"since": 7, "documents": 1, "ids": ["x"]}
    fewer: Any = without(first, {"y", "z"})
    assert (fewer["held"], json.loads(fewer["held_back"])["missing_ts"]["documents"]) == (["x"], 1)
    assert without(fewer, {"x"})["held_back"] is None


UNUSED = Chunking(Path(), ChunkLimits(), b"", "", {})  # nothing is listed, so nothing is compared with it


def chosen(source: Told, scope: Scope | None = None) -> tuple[list[str], dict[str, str]]:
    """Of partitions 1 and f/2 that are known and not listed now: which are gone, and which only cannot be seen."""
    rows = {("s", p): ROW | {"overlaps": []} for p in ("1", "f/2")}
    work = choose_partitions([source], rows, UNUSED, scope or Scope())
    return [p for _, p in work.gone], {p: reason for (_, p), reason in work.unlisted.items()}


def test_what_a_complete_listing_lacks_is_gone() -> None:
    assert chosen(Told("s", "T", {"3": []})) == (["1", "f/2"], {})


def test_what_lies_below_something_refused_is_out_of_reach() -> None:
    assert chosen(Told("s", "T", {"3": []}, refused=("f",))) == (["1"], {"f/2": "unreadable_folder"})


def test_nothing_is_gone_from_a_listing_that_is_not_complete_or_has_nothing_in_it() -> None:
    for source in (Told("s", "T", {"3": []}, ("9",), complete=False), Told("s", "T", {}, ("9",)), Told("s", "T", {})):
        gone, unlisted = chosen(source)
        assert gone == [] and unlisted.keys() == {"1", "f/2"}


def test_within_a_window_nothing_is_gone_and_nothing_is_held_back() -> None:
    assert chosen(Told("s", "T", {"3": []}), Scope(since=1)) == ([], {})


def test_a_source_that_cannot_be_listed_is_said_to_hold_back_since_then_and_other_scopes_leave_that(
    tmp_path: Path,
) -> None:
    stories = Stories(tmp_path / "ws")
    stories.tell("T1", {"a/1": [text("x", 1, "the lift is broken")]})
    state = writing(stories.pipeline.state)
    row = {"source_id": "T1-a", "partition": "1", "fingerprint": "f", "documents": 1, "retry": False}
    state.change("sources", [row | {"_delete": False}])
    for name, source in stories.sources["T1"].items():
        source.partitions, source.refused = {}, (name,)
    stories.read()
    stories.tell("T2", {})
    for source in stories.sources["T2"].values():
        source.partitions, source.refused = {}, ("folder",)
    for scope in (Scope(), Scope(teams=("T2",)), Scope(kind="file")):
        stories.read(scope)
        assert held_back(state) == [HeldBack("T1-a", "1", "unreadable_folder", 1_000_000, 1)]
        assert [len(rows) for rows in stories.quarantine().values()] == [2, 2], "each scope clears its own alone"


@pytest.mark.usefixtures("encoder_here")
@pytest.mark.parametrize("torn", [False, True])
def test_verify_of_a_team_tells_of_its_own_held_deletions_alone(workspace: Workspace, torn: bool) -> None:
    """Also where one file holds rows of several teams."""
    columns = 'id = "id"\nteam_id = "team"\ntext = "body"\ncreated_at = "at"\n'
    table = f'[[sources]]\nkind = "table"\nuri = "rows"\nformat = "json"\n[sources.columns]\n{columns}'
    workspace.config.write_text(table + workspace.config.read_text())
    teams = {"1": "T01", "2": "T02", "3": "T02", "4": "T03"}
    rows = [{"id": i, "team": team, "body": f"text {i}", "at": "2025-03-03"} for i, team in teams.items()]
    file = write_lines(workspace.root / "rows" / "a.json", rows)
    assert workspace.run().code == 0
    if torn:  # not a line of it can be read: all that it held may be gone
        file.write_text("no lines of JSON")
    else:  # three rows have gone while a line that may be one of them cannot be read
        write_lines(file, [rows[3], "{no JSON"])
    assert workspace.run().code == 3

    def told(*scope: str) -> list[int]:
        return [one["documents"] for one in workspace.verify(*scope).body["held_back"]]

    assert told() == [4 if torn else 3]
    assert (told("--team", "T01"), told("--team", "T02")) == ([1], [2])
    assert told("--team", "T03") == ([1] if torn else [])
    assert told("--team", "T03", "--team", "T01") == [2 if torn else 1]
    assert told("--team", "T01", "--until", "2025-03-01") == []


@pytest.mark.usefixtures("encoder_here")
def test_the_last_line_of_a_run_says_what_it_left_open(workspace: Workspace) -> None:
    def last_line(*arguments: str) -> str:
        return invoke([*arguments, "--config", str(workspace.config)]).stdout.splitlines()[-1]

    assert last_line("run").startswith("  time")
    (workspace.files / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    hint = "; `embedmill status` lists them with the reasons"
    assert last_line("run") == f"left open: 1 record in quarantine{hint}"
    kept = [one for one in workspace.messages("general") if one["text"] not in TEXTS[1:3]]
    workspace.day("general", [*kept, {"type": "message", "user": "U1", "text": "of no time"}])
    both = f"left open: 2 records in quarantine, 2 documents held back, gone or not{hint}"
    for command in ("run", "reindex"):
        assert last_line(command) == both
    documents = workspace.run().body["documents"]
    assert (documents["quarantined"], documents["held_back"]) == (2, 2)
    documents = workspace.run("--channel", "C2").body["documents"]
    assert documents["held_back"] == 0, "they are of another channel"


@pytest.mark.usefixtures("encoder_here")
def test_verify_of_a_team_counts_changes_of_its_own_sources_alone(workspace: Workspace) -> None:
    other = workspace.root / "other"
    other.mkdir()
    (other / "a.md").write_text("of another team")
    workspace.config.write_text(
        f'[[sources]]\nkind = "files"\nuri = "other"\nteam_id = "T02"\n{workspace.config.read_text()}'
    )
    assert workspace.run().code == 0
    (other / "a.md").write_text("of another team, said otherwise")
    changed = [workspace.verify(*scope).body["source_partitions_changed"] for scope in ((), ("--team", "T02"))]
    assert changed == [1, 1]
    assert workspace.verify("--team", TEAM).body["source_partitions_changed"] == 0


def test_tables_of_an_earlier_version_are_read_and_grow_when_they_are_written(tmp_path: Path) -> None:
    new = {
        "sources": {"digests", "suspects", "held", "named", "held_back", "unlisted", "unlisted_since"},
        "quarantine": {"ignored"},
        "published": {"source_id"},
    }
    root = tmp_path / "state"
    for name, columns in new.items():
        spec = TABLES[name]
        old = pa.schema([f for f in spec.stored if f.name not in columns])
        DeltaTable.create(str(root / name), schema=old, partition_by=spec.stored_by)
        row = {f.name: None if pa.types.is_list(f.type) else 1 if f.type == pa.int64() else "c" for f in old}
        row |= {f.name: False for f in old if f.type == pa.bool_()}
        row |= {"bucket": bucket_of("c"), "layer": BASE} if spec.layered else {}
        write_deltalake(str(root / name), pa.Table.from_pylist([row], schema=old), mode="append")
    state = State(root, cut="c", fence=1)
    assert held_back(state) == []
    assert state.read("quarantine", ["ignored"])["ignored"].to_pylist() == [None]
    for name, columns in new.items():
        [row] = state.read(name).to_pylist()
        assert all(row[column] is None for column in columns)
        state.change(name, [row | {"_delete": False}, row | dict.fromkeys(TABLES[name].key, "d") | {"_delete": False}])
        assert state.count(name) == 2 and columns <= {f.name for f in DeltaTable(str(root / name)).schema().fields}
        more = [row | dict.fromkeys(TABLES[name].key, key) for key in ("e", "f")]
        table = pa.Table.from_pylist(more, schema=TABLES[name].schema)
        seq = state.next_seq(name) if TABLES[name].layered else 0
        state.append(name, write_part(root, name, table, "c", seq=seq))
        assert state.count(name) == 4 and len(state.distinct(name, TABLES[name].key)) == 4
    assert state.count("removals") == 0


def removal(doc: str, version: int, team: str = "T1", channel: str = "C1") -> dict[str, Any]:
    return {
        "source_id": "s",
        "partition": "1",
        "doc_id": f"{team}/m/{channel}/{doc}",
        "team_id": team,
        "channel_id": channel,
        "kind": "message",
        "created_at": 1,
        "version": version,
        "deleted": True,
        "_delete": False,
    }


def test_a_purge_forgets_removals_of_its_scope_and_what_is_held_back_of_its_documents(tmp_path: Path) -> None:
    state = State(tmp_path / "state", cut="c", fence=1)
    state.change("removals", [removal("x", 5), removal("y", 9), removal("z", 5, "T2"), removal("w", 5, "T1", "C2")])
    pipeline = cast(Pipeline, SimpleNamespace(state=state))
    _drop_removals(pipeline, Target("T1", "C1"), 7)
    left = {doc.rpartition("/")[2] for doc in state.read("removals", ["doc_id"])["doc_id"].to_pylist()}
    assert left == {"y", "z", "w"}, "one after the purge may still have a newer text to beat"
    said = json.dumps({"missing_ts": {"since": 1, "documents": 2, "ids": ["x", "y"]}})
    row = {"source_id": "s", "partition": "1", "held": ["x", "y"], "named": ["x"], "held_back": said, "_delete": False}
    state.change("sources", [row])
    assert drop_held(state, {"x", "z"}) and not drop_held(state, {"z"})
    [found] = state.read("sources").to_pylist()
    assert (found["held"], found["named"]) == (["y"], None)
    assert [one.documents for one in held_back(state)] == [1]


def test_a_rebuilt_state_still_knows_the_partitions_that_only_removals_came_from(tmp_path: Path) -> None:
    """Else one that has left its source would never be missed, and its deletions would count for ever."""
    state = State(tmp_path / "state", cut="c", fence=1)
    state.change("removals", [removal("x", 5)])
    with Lease(state.root, run_id="run-1", seconds=60, newest=state.newest_fence) as lease:
        _read_all_again(state.for_writing(lease.number).every_cut(), lease, "run-1")
    assert [(r["source_id"], r["partition"]) for r in state.read("sources").to_pylist()] == [("s", "1")]


def test_status_says_what_is_held_back_since_when_and_counts_apart_what_is_ignored(workspace: Workspace) -> None:
    state = writing(Pipeline(load_config(workspace.config), Progress()).state)
    said = json.dumps({"missing_ts": {"since": 1_741_000_000_000_000, "documents": 2, "ids": ["x", "y"]}})
    state.change("sources", [{"source_id": "s", "partition": "C1/1", "held_back": said, "_delete": False}])
    row = {"source_id": "s", "partition": "C1/1", "step": "extract", "first_seen": 1_000_000, "_delete": False}
    kinds = [("unsupported_type", True), ("unsupported_type", True), ("missing_ts", False)]
    state.change("quarantine", [row | {"key": str(n), "reason": r, "ignored": i} for n, (r, i) in enumerate(kinds)])
    body = workspace.call("status").body
    counted = {"total": 1, "reasons": {"missing_ts": 1}, "ignored": {"unsupported_type": 2}}
    first = {"source_id": "s", "partition": "C1/1", "key": "2", "reason": "missing_ts", "detail": ""}
    assert body["quarantine"] == counted | {"newest": [first | {"first_seen": "1970-01-01T00:00:01Z"}]}
    held = {"source_id": "s", "partition": "C1/1", "reason": "missing_ts", "since": "2025-03-03T11:06:40Z"}
    assert body["held_back"] == [held | {"documents": 2}]
    shown = render.status(StatusBody.model_validate_json(json.dumps(body)))
    assert "2 documents of s C1/1 since 2025-03-03T11:06:40Z: gone or not, missing_ts hides it" in shown
