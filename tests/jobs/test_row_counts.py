"""A worker that cannot see the state writes elsewhere and ends well: the run must fail, and say at which step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedding.errors import EmbedmillError
from indexers.exact import ExactIndex
from jobs.extract import extract, readings
from jobs.extract.extracted import CHUNK_ROW, EXTRACTED, PARTITION_ROW
from jobs.extract.readings import read_staged
from jobs.plan import plan
from jobs.plan.plan import Plan
from jobs.publish.publisher import Publisher
from jobs.publish.row_writer import RowWriter
from jobs.state.parts import write_part
from jobs.state.row_counts import expect
from jobs.state.run_target import RunTarget
from jobs.state.staging import Staged, rows_in
from jobs.state.store import State
from jobs.state.tables import TABLES
from jobs.steps import _deleted
from tests.support.workspace import Workspace, stage

ASKED = {("s", "1"), ("s", "2")}


def chunk(partition: str, n: int) -> dict[str, Any]:
    return {"row": CHUNK_ROW, "source_id": "s", "partition": partition, "chunk_id": f"{partition}#{n}"}


def tally(partition: str, chunks: int) -> dict[str, Any]:
    return {
        "row": PARTITION_ROW,
        "source_id": "s",
        "partition": partition,
        "sent": json.dumps({CHUNK_ROW: chunks}),
        "whole": True,
        "documents": chunks,
    }


def staged(folder: Path, *rows: dict[str, Any]) -> Staged:
    return stage(folder, **{f"n={n}": pa.Table.from_pylist([row], schema=EXTRACTED) for n, row in enumerate(rows)})


GOOD = [tally("1", 2), chunk("1", 0), chunk("1", 1), tally("2", 0)]


def test_every_partition_that_was_asked_for_comes_back_once_with_all_its_rows(tmp_path: Path) -> None:
    partitions, rejects = read_staged(staged(tmp_path / "good", *GOOD), ASKED)
    assert (len(partitions), rejects) == (2, [])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "2 source partitions were asked for and 0 came back"),
        (GOOD[:3], "2 source partitions were asked for and 1 came back"),
        ([*GOOD, GOOD[3]], "2 readings of source partitions were asked for and 3 came back"),
        ([*GOOD[:3], tally("9", 0)], "2 source partitions were asked for and 1 came back"),
        ([GOOD[0], GOOD[1], GOOD[3]], "2 chunk rows of a partition were asked for and 1 came back"),
        ([*GOOD, chunk("2", 0)], "0 chunk rows of a partition were asked for and 1 came back"),
    ],
    ids=["nothing", "one less", "one twice", "another", "a row less", "a row more"],
)
def test_any_other_answer_is_refused(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(EmbedmillError, match=f"extract: {says}"):
        read_staged(staged(tmp_path / "bad", *rows), ASKED)


def test_a_file_that_no_worker_wrote_here_is_not_committed(tmp_path: Path) -> None:
    here, there = State(tmp_path / "here", fence=1), State(tmp_path / "there", fence=1)
    blank = {f.name: "" for f in TABLES["vectors"].schema} | {"vector": b""}
    parts = write_part(there.root, "vectors", pa.Table.from_pylist([blank]))
    with pytest.raises(EmbedmillError, match="1 rows of table 'vectors' that are not in"):
        here.append("vectors", parts)
    there.append("vectors", parts)
    assert (here.count("vectors"), there.count("vectors")) == (0, 1)


def test_rows_of_a_folder_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert rows_in(tmp_path / "nowhere") == 0
    expect("plan", "rows to delete", 3, 3)
    with pytest.raises(EmbedmillError, match="plan: 1,200 rows to delete were asked for and 0 came back"):
        expect("plan", "rows to delete", 1_200, rows_in(tmp_path / "nowhere"))


def test_a_plan_whose_deletes_are_not_where_it_wrote_them_is_not_carried_out(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    target = RunTarget(state, "v", "s", "r")
    writer = RowWriter.of(target, 9, lambda: None)
    publisher = Publisher(ExactIndex(), target, writer, progress=lambda rows: None)
    with pytest.raises(EmbedmillError, match="publish: 4 rows to delete were asked for and 0 came back"):
        _deleted(publisher, Plan(delete=4), lambda: False)


def test_a_run_whose_executors_wrote_elsewhere_fails_and_changes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = readings.read_partitions

    def elsewhere(*given: Any) -> None:
        real(*given)
        for file in given[-1].iterdir():
            file.unlink()

    monkeypatch.setattr(extract, "read_partitions", elsewhere)
    failed = workspace.run()
    assert failed.code == 1 and "extract: 4 source partitions were asked for and 0 came back" in failed.err
    status = workspace.call("status").body
    assert status["tables"]["sources"] == status["tables"]["chunks"] == 0
    assert [run["status"] for run in status["last_runs"]] == ["failed"]


def test_a_plan_whose_executors_wrote_elsewhere_fails(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(frames: Any, rows: Any, folder: Path, dealt: Any) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    monkeypatch.setattr(plan, "_write_rows", elsewhere)
    failed = workspace.run()
    assert failed.code == 1 and "plan: 8 rows to write were asked for and 0 came back" in failed.err
