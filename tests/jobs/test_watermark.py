"""A run finds without a plan that nothing is left to do, and only then: whatever a plan would read is as it was."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedding.errors import LeaseHeldError
from embedding.text.template import Template
from indexers import exact
from jobs import steps
from jobs.commands.plan import plan
from jobs.commands.purge import purge
from jobs.commands.reindex import reindex
from jobs.commands.rollback import rollback
from jobs.commands.run import run
from jobs.commands.step import StepRequest, step
from jobs.commands.takeover import takeover
from jobs.commands.verify import verify
from jobs.pipeline import Pipeline
from jobs.plan.plan import Plan, make_plan, plan_changes
from jobs.report import Report
from jobs.scope import Scope
from jobs.state.frames import Frames
from jobs.state.run_target import RunTarget
from jobs.state.staging import staged
from jobs.state.storage import StatePath, remove_all
from jobs.state.store import State
from jobs.state.tables import TABLES
from jobs.state.watermark import WATERMARK, drop_watermark, keep_watermark, settled, settled_but
from tests.support.in_process import Death, Killed, copied_with_index, open_pipeline, without_ray
from tests.support.workspace import TEAM, TEXTS, Workspace, folder_of, message

pytestmark = pytest.mark.usefixtures("small_row_groups")

# -- the watermark itself ----------------------------------------------------------------------------------------------

V1 = "messages__v1"
LEASE = 5


def rows(name: str, value: str) -> list[dict[str, object]]:
    spec = TABLES[name]
    values: dict[str, object] = {f.name: value for f in spec.schema if pa.types.is_string(f.type)}
    return [{**values, "_delete": False}]


@pytest.fixture
def target(tmp_path: Path) -> RunTarget:
    """A version of an index that lacks nothing, and is noted as such."""
    state = State(tmp_path / "state", cut="c1", fence=LEASE)
    for name in TABLES:
        state.change(name, rows(name, "a"))
    state.drop("quarantine", "true")
    found = RunTarget(state, V1, "space", "run")
    keep_watermark(found, lease=LEASE, chunks=1, index_rows=1)
    return found


def test_it_holds_while_nothing_changes(target: RunTarget) -> None:
    kept = settled(target)
    assert kept is not None and (kept.chunks, kept.index_rows) == (1, 1)
    for name in ("runs", "sources", "quarantine", "purges", "removals"):
        target.state.change(name, rows(name, "b"))
    assert settled(replace(target, run_id="another")) == kept, "no plan reads these tables"


@pytest.mark.parametrize("name", ["chunks", "published", "vectors"])
@pytest.mark.parametrize("change", ["added", "changed", "removed", "dropped", "made anew", "lost", "put back older"])
def test_a_change_of_a_table_that_a_plan_reads_ends_it(
    target: RunTarget, name: str, change: str, tmp_path: Path
) -> None:
    state = target.state
    folder = folder_of(state) / name
    if change == "put back older":
        shutil.copytree(folder, tmp_path / "older")
        state.change(name, rows(name, "b"))
        keep_watermark(target, lease=LEASE, chunks=2, index_rows=2)
        shutil.rmtree(folder)
        shutil.move(tmp_path / "older", folder)
        state.change(name, rows(name, "c"))  # as many commits as before, of something else
    elif change == "lost":
        shutil.rmtree(folder)
    elif change == "made anew":
        state.make_anew(name)
        state.change(name, rows(name, "a"))
    elif change == "dropped":
        state.drop(name, "team_id = 'a'")
    else:
        given = rows(name, "b" if change == "added" else "a")
        state.change(name, [{**row, "_delete": change == "removed"} for row in given])
    assert settled(target) is None


def data_file(folder: Path) -> Path:
    return next(file for file in folder.rglob("*.parquet") if "_delta_log" not in file.parts)


def test_a_data_file_that_is_missing_or_cut_short_ends_it(target: RunTarget) -> None:
    file = data_file(folder_of(target.state) / "published")
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    assert settled(target) is None
    file.unlink()
    assert settled(target) is None
    file.write_bytes(good)
    assert settled(target) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"version": "messages__v2"},
        {"space_id": "another"},
        {"lexical": Template.parse("{author} {text}")},
        {"rename_tokens": 0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_settings_are_another_plans(target: RunTarget, other: dict[str, Any]) -> None:
    assert settled(replace(target, **other)) is None


def test_another_cut_is_another_plans(target: RunTarget) -> None:
    assert settled(replace(target, state=target.state.of_cut("c2"))) is None


def test_nothing_is_kept_while_a_text_waits_for_its_vector(target: RunTarget) -> None:
    target.state.change("quarantine", [{**rows("quarantine", "b")[0], "step": "embed"}])
    keep_watermark(target, lease=LEASE, chunks=1, index_rows=1)
    assert settled(target) is None


def test_nothing_is_kept_while_new_names_may_wait_for_their_turn(target: RunTarget) -> None:
    waits = replace(target, rename_tokens=100)
    keep_watermark(waits, lease=LEASE, chunks=1, index_rows=1)
    assert settled(waits) is None and settled(target) is None


def test_a_run_that_lost_its_lease_keeps_nothing_of_what_its_successor_wrote(target: RunTarget) -> None:
    drop_watermark(target.state.root)
    target.state.for_writing(LEASE + 1).change("chunks", rows("chunks", "b"))
    with pytest.raises(LeaseHeldError):
        keep_watermark(target, lease=LEASE, chunks=1, index_rows=1)
    assert settled(target) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": "x"}', '{"version": 3}'])
def test_a_watermark_that_cannot_be_read_is_none(target: RunTarget, content: str) -> None:
    (folder_of(target.state) / WATERMARK).write_text(content)
    assert settled(target) is None
    keep_watermark(target, lease=LEASE, chunks=1, index_rows=1)
    assert settled(target) is not None


# -- runs that find it -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    with without_ray():
        yield


@pytest.fixture(scope="module")
def _twice(here: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one row of quarantine, in which a run has found nothing to do."""
    space = Workspace(tmp_path_factory.mktemp("twice") / "ws")
    space.day("random", [*space.messages("random"), {"type": "message", "text": "no ts"}])
    ran(space)
    return space


@pytest.fixture
def twice(_twice: Workspace, tmp_path: Path) -> Workspace:
    return copied_with_index(_twice, tmp_path / "ws")


def ran(space: Workspace, scope: Scope | None = None, **named: Any) -> tuple[Report, bool]:
    """The report of a run, and whether it planned: then it has asked for Spark."""
    pipeline = open_pipeline(space.config)
    return run(pipeline, scope or Scope(), **named), planned(pipeline)


def planned(pipeline: Pipeline) -> bool:
    return pipeline._frames is not None


def writes(report: Report) -> int:
    return report.upserted + report.deleted


def test_a_run_with_nothing_to_do_plans_nothing_and_says_the_same(twice: Workspace) -> None:
    first, second = ran(twice, Scope(teams=(TEAM,))), ran(twice)
    assert first[1] and not second[1], "a part is planned, the whole need not be"
    same = {"chunks", "documents", "index", "index_rows", "partitions", "space_id", "status", "tokens"}
    said = [report.body().model_dump(include=same) for report, _ in (first, second)]
    assert said[0] == said[1] and second[0].plan.unchanged == 8


def test_so_does_a_plan_and_a_run_by_steps(twice: Workspace) -> None:
    pipeline = open_pipeline(twice.config)
    assert plan(pipeline, Scope()).chunks.unchanged == 8 and not planned(pipeline)
    for name in ("extract", "plan"):
        pipeline = open_pipeline(twice.config)
        body = step(pipeline, Scope(), StepRequest(name, "night-1"))
        assert not planned(pipeline)
    assert body.empty and body.status == "partial"


def test_steps_keep_it_as_a_run_does(twice: Workspace) -> None:
    twice.day("general", [message(0, "The lockers moved to the station")])
    for name in ("extract", "plan", "embed", "publish"):
        step(open_pipeline(twice.config), Scope(), StepRequest(name, "night-1"))
    report, asked = ran(twice)
    assert not asked and report.plan.unchanged == 5 and writes(report) == 0


def test_an_edit_a_deletion_and_a_new_text_are_planned_and_then_settled_again(twice: Workspace) -> None:
    twice.day("general", [message(0, TEXTS[0]), message(1, "edited"), message(9, "new")])
    report, asked = ran(twice)
    assert asked and (report.embedded, report.deleted) == (2, 2)
    report, asked = ran(twice)
    assert not asked and writes(report) == 0 and report.plan.total == 7


def test_a_part_of_the_sources_keeps_nothing_and_ends_it(twice: Workspace) -> None:
    twice.day("general", [message(0, "edited")])
    (twice.files / "notes.txt").write_text("Another note.\n")
    assert ran(twice, Scope(kind="file"))[0].embedded == 1
    report, asked = ran(twice)
    assert asked and report.embedded == 1


def test_a_part_that_changed_nothing_leaves_it(twice: Workspace) -> None:
    assert ran(twice, Scope(kind="file"))[1]
    assert not ran(twice)[1]


def test_an_index_of_another_number_of_rows_is_planned(twice: Workspace) -> None:
    pipeline = open_pipeline(twice.config)
    pipeline.index().delete(V1, [pipeline.state.read("chunks", ["chunk_id"])["chunk_id"][0].as_py()])
    assert ran(twice)[1]


def test_an_index_that_was_lost_is_filled_again(twice: Workspace) -> None:
    exact._STORES.pop(str(open_pipeline(twice.config).config.index_uri))
    report, asked = ran(twice)
    assert asked and report.upserted == report.rows_after == 8


def test_another_command_ends_it(twice: Workspace) -> None:
    takeover(open_pipeline(twice.config))
    assert ran(twice)[1] and not ran(twice)[1]
    assert verify(open_pipeline(twice.config), Scope()).status == "ok"
    assert not ran(twice)[1], "it only looked"
    verify(open_pipeline(twice.config), Scope(), repair=True)
    assert ran(twice)[1]
    reindex(open_pipeline(twice.config), Scope())
    assert ran(twice)[1] and not ran(twice)[1]
    rollback(open_pipeline(twice.config))
    report, asked = ran(twice)
    assert asked and report.index == V1


def test_a_purged_document_stays_out_and_the_purge_ends_it(twice: Workspace) -> None:
    purge(open_pipeline(twice.config), team=TEAM, channel="", ids=[f"{TEAM}/f/notes.txt"], before=None)
    report, asked = ran(twice)
    assert asked and report.rows_after == 7
    assert not ran(twice)[1]


@pytest.mark.parametrize(("at", "after"), [(1, True), (2, True), (4, False), (5, True), (7, False), (8, True)])
def test_a_run_that_died_anywhere_is_ended_by_the_next(twice: Workspace, at: int, after: bool) -> None:
    """Also where the sources have changed back meanwhile, so that nothing is read that had not been read before."""
    general = twice.messages("general")
    twice.day("general", [message(0, "edited"), message(8, "new")])
    with suppress(Killed):  # the last ones are of more writes than it takes
        run(open_pipeline(twice.config, Death(at=at, after=after)), Scope())
    twice.day("general", general)
    report = ran(twice)[0]
    assert report.rows_after == report.plan.total == 8
    assert verify(open_pipeline(twice.config), Scope()).status == "ok"
    assert writes(ran(twice)[0]) == 0


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1])])
def test_a_damaged_table_is_seen_by_a_run_with_nothing_to_do(
    twice: Workspace, damage: Callable[[Path], object]
) -> None:
    damage(data_file(twice.root / "state" / "published"))
    answer = twice.call("plan")
    assert answer.code == 1 and "table 'published' is damaged" in answer.err


# -- a plan of what changed --------------------------------------------------------------------------------------------


class BothPlans:
    """Stands in for ``plan_changes``: makes the whole plan too, and compares them."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, frames: Frames, target: RunTarget, changed: pa.Table, before: int, **named: Any) -> Plan:
        self.asked += 1
        whole = replace(target, run_id="the whole plan")
        found, wanted = (
            plan_changes(frames, target, changed, before, **named),
            make_plan(frames, whole, Scope(), **named),
        )
        assert found == wanted
        for folder in ("texts", "rows", "deletes"):
            found_rows, wanted_rows = (rows_below(one.work / folder) for one in (target, whole))
            assert found_rows == wanted_rows, folder
        remove_all(whole.work)
        return found


def rows_below(folder: StatePath) -> list[str]:
    """The rows that are staged in a folder, in an order of their own; a row's shard is of no matter."""
    return sorted(map(repr, staged(folder).table().to_pylist()))


def change(space: Workspace, held: dict[int, dict[str, Any]], chance: random.Random, turn: int) -> None:
    """Something that happens in a channel: a post, a copy, a reply, an edit, a deletion, a new name."""
    some = chance.choice([*held])
    match chance.choice(["post", "copy", "reply", "edit", "delete", "name"]):
        case "post":
            n = chance.randrange(6, 400)
            held[n] = message(n, f"said at {turn}")
        case "copy":
            n = chance.randrange(400, 800)
            held[n] = message(n, held[some]["text"])
        case "reply":
            root = held[some].get("thread_ts", held[some]["ts"])
            n = chance.randrange(800, 900)
            held[n] = message(n, f"reply {turn}", thread_ts=root)
        case "edit":
            held[some] |= {"text": f"edited {turn}", "edited": {"user": "U1", "ts": f"{1_750_000_000 + turn}.000000"}}
        case "delete" if len(held) > 3:
            del held[some]
        case "name":
            space.channels({"C1": "general", "C2": f"random-{turn}"})


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(n, marks=pytest.mark.long) for n in range(3, 9))])
def test_a_plan_of_what_changed_is_the_whole_plan(twice: Workspace, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Over random histories; some runs are of a part, or die."""
    both, chance = BothPlans(), random.Random(seed)
    monkeypatch.setattr(steps, "plan_changes", both)
    held = {n: message(n, f"said at {n}") for n in range(6)}
    for turn in range(14):
        for _ in range(chance.randrange(1, 4)):
            change(twice, held, chance, turn)
        twice.day("random", [held[n] for n in sorted(held)])
        match chance.randrange(6):
            case 0:
                run(open_pipeline(twice.config), Scope(channels=("C1",)))
            case 1:
                with suppress(Killed):
                    run(open_pipeline(twice.config, Death(chance.randrange(1, 12))), Scope())
        run(open_pipeline(twice.config), Scope())
    assert both.asked >= 7
    assert verify(open_pipeline(twice.config), Scope()).status == "ok"


def test_a_table_that_was_put_back_has_all_compared(twice: Workspace, tmp_path: Path) -> None:
    """Its newest changes may be older than those of the watermark, which then would tell nothing."""
    chunks = twice.root / "state" / "chunks"
    shutil.copytree(chunks, tmp_path / "older")
    twice.day("general", [message(0, "another text")])
    ran(twice)
    shutil.rmtree(chunks)
    shutil.copytree(tmp_path / "older", chunks)
    target = open_pipeline(twice.config).target(V1, "r")
    assert settled_but(target) is None
