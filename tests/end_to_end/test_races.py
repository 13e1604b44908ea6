"""Nightly, backfill of an old snapshot, reindex and purge, in all orders and one inside the other.

An old snapshot never wins, and a purge is never undone by a run that started before it: asked after every step of
every sequence, of every index version and table.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from embedding.ids import chunk_id, message_id
from jobs.commands.purge import purge
from jobs.commands.reindex import reindex
from jobs.commands.run import run
from jobs.commands.step import StepName, StepRequest, step
from jobs.scope import Scope
from jobs.state.store import State
from tests.support.in_process import WatchedIndex, copy_index, open_pipeline, without_ray
from tests.support.workspace import START, TEAM, Workspace, message

DAY = Scope(since=START * 1_000_000, until=(START + 86_400) * 1_000_000)
STEPS = ("extract", "plan", "embed", "publish")
OLD, NEW, KEPT, LATE, SECRET = "the old words", "the new words", "said and kept", "said last night", "a secret"


def chunk(number: int) -> str:
    return chunk_id(message_id(TEAM, "C1", message(number, "")["ts"]), 0)


EDITED, STAYS, PURGED, ADDED = (chunk(n) for n in range(4))
PURGED_DOCUMENT = PURGED.rpartition("#")[0]


def prepare(root: Path) -> Workspace:
    """Published is a day as it was. The export has gone on since, and a copy of that day lies beside it."""
    space = Workspace(root, files=False)
    shutil.rmtree(space.export / "random")
    day = [message(0, OLD), message(1, KEPT), message(2, SECRET)]
    space.day("general", day)
    shutil.copytree(space.export, root / "archive")
    config = space.config.read_text()
    (root / "backfill.toml").write_text(config.replace('uri = "export"', 'uri = "archive"'))
    return space


def go_on(space: Workspace) -> None:
    edited = {"user": "U1", "ts": f"{START + 3600}.000000"}
    day = [message(0, NEW, edited=edited), message(1, KEPT), message(2, SECRET), message(3, LATE)]
    space.day("general", day)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with without_ray():
        space = prepare(tmp_path_factory.mktemp("start") / "ws")
        run(open_pipeline(space.config), Scope())
        go_on(space)
        yield space.root


class Night:
    """A copy of the start, with what may happen to it; every step is followed by the questions."""

    def __init__(self, start: Path, root: Path) -> None:
        shutil.copytree(start, root, ignore=shutil.ignore_patterns("engines*"))
        copy_index(start / "embedmill.toml", root / "embedmill.toml")
        self.nightly, self.backfill = root / "embedmill.toml", root / "backfill.toml"
        self.newest: dict[tuple[str, str], int] = {}
        self.purged = False

    def do(self, name: str) -> None:
        """ "nightly", "backfill", "reindex" and "purge", or a step of the first three: "backfill embed"."""
        what, _, part = name.partition(" ")
        pipeline = open_pipeline(self.backfill if what == "backfill" else self.nightly)
        scope = DAY if what == "backfill" else Scope()
        if part:
            step(pipeline, scope, StepRequest(cast(StepName, part), what, build=what == "reindex"))
        elif what == "purge":
            removed = purge(pipeline, team=TEAM, channel="", ids=[PURGED_DOCUMENT], before=None).removed
            assert removed.index >= 1 and removed.chunks == 1 <= removed.vectors  # an earlier text has one too
            self.purged = True
        elif what == "reindex":
            assert reindex(pipeline, scope).activated
        else:
            assert run(pipeline, scope).status == "ok"
        self.ask()

    def rows(self) -> dict[str, dict[str, dict[str, Any]]]:
        index = open_pipeline(self.nightly).index()
        assert isinstance(index, WatchedIndex)
        return {version: index._store.versions[version].rows for version in index.versions()}

    def ask(self) -> None:
        for version, rows in self.rows().items():
            for key, row in rows.items():
                before = self.newest.setdefault((version, key), 0)
                assert row["version"] >= before, f"an older snapshot won in {version}"
                self.newest[version, key] = row["version"]
            assert not self.purged or PURGED not in rows, f"a purge was undone in {version}"
        if self.purged:
            state = State(self.nightly.parent / "state")
            assert PURGED not in state.read("chunks", ["chunk_id"])["chunk_id"].to_pylist()
            assert PURGED not in state.read("published", ["chunk_id"])["chunk_id"].to_pylist()
            for file in (state.root / "work").glob("*/rows/**/*.parquet"):
                assert SECRET not in pq.read_table(file)["text"].to_pylist(), "a plan still has the text"

    def end(self) -> None:
        """The next nightly run: the index is what the sources say."""
        self.do("nightly")
        wanted = {EDITED: NEW, STAYS: KEPT, ADDED: LATE} | ({} if self.purged else {PURGED: SECRET})
        live = open_pipeline(self.nightly).index().live()
        assert live is not None
        assert {key: row["text"] for key, row in self.rows()[live].items()} == wanted
        ledger = State(self.nightly.parent / "state").read("published", ["index", "chunk_id"]).to_pylist()
        assert sorted(r["chunk_id"] for r in ledger if r["index"] == live) == sorted(wanted)


def steps(what: str) -> list[str]:
    return [f"{what} {part}" for part in STEPS]


def one_inside() -> Iterator[list[str]]:
    """Each of them whole between any two steps of each other."""
    for outer in ("nightly", "backfill", "reindex"):
        for inner in ("nightly", "backfill", "reindex", "purge"):
            for gap in range(1, len(STEPS)):
                if inner != outer:
                    yield [*steps(outer)[:gap], inner, *steps(outer)[gap:]]


def two_in_turns() -> Iterator[list[str]]:
    """All orders of the steps of a nightly run and a backfill, with the purge in the middle."""
    for places in combinations(range(8), 4):
        nightly, backfill = iter(steps("nightly")), iter(steps("backfill"))
        turns = [next(nightly if n in places else backfill) for n in range(8)]
        yield [*turns[:4], "purge", *turns[4:]]


ORDERS = [list(order) for order in permutations(("nightly", "backfill", "reindex", "purge"))]
INSIDE, TURNS = list(one_inside()), list(two_in_turns())
# One in so many of each kind in the default run.
FEW = ORDERS[::8] + INSIDE[2::9] + TURNS[::24]


def named(sequence: list[str]) -> str:
    return ", ".join(sequence)


def play(start: Path, root: Path, sequence: list[str]) -> None:
    with without_ray():
        night = Night(start, root / "ws")
        for name in sequence:
            night.do(name)
        night.end()


@pytest.mark.parametrize("sequence", FEW, ids=named)
def test_an_old_snapshot_never_wins_and_a_purge_stays(start: Path, tmp_path: Path, sequence: list[str]) -> None:
    play(start, tmp_path, sequence)


@pytest.mark.long
@pytest.mark.parametrize("sequence", [s for s in ORDERS + INSIDE + TURNS if s not in FEW], ids=named)
def test_in_all_orders_and_overlaps(start: Path, tmp_path: Path, sequence: list[str]) -> None:
    play(start, tmp_path, sequence)


@pytest.mark.long
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1)], ids=str)
def test_all_four_started_at_once_as_processes(tmp_path: Path, order: tuple[int, ...]) -> None:
    """They wait for the lease, and the build lets the others in; in any order the end is the same."""
    space = prepare(tmp_path / "ws")
    assert space.run().code == 0
    go_on(space)
    until = ["--since", "2025-03-03", "--until", "2025-03-04"]
    commands: list[tuple[Path, list[str]]] = [
        (space.config, ["run"]),
        (space.root / "backfill.toml", ["run", *until]),
        (space.config, ["reindex"]),
        (space.config, ["purge", "--team", TEAM, "--ids", PURGED_DOCUMENT]),
    ]
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jobs.cli",
                *commands[n][1],
                "--config",
                str(commands[n][0]),
                "--wait",
                "600",
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in order
    ]
    try:
        for process in started:
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            assert json.loads(out)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert space.run().code == 0 and space.verify().code == 0
    texts = State(space.root / "state").read("chunks", ["text"])["text"].to_pylist()
    assert sorted(texts) == sorted((NEW, KEPT, LATE))
    for text in (OLD, SECRET):
        hits = space.call("search", text, "--team", TEAM).body["hits"]
        assert {hit["text"] for hit in hits} == {NEW, KEPT, LATE}
