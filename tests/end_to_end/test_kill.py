"""A run killed with SIGKILL at any stage is simply run again: nothing lost, nothing doubled, nothing encoded twice."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs.state.store import State
from tests.chaos.world import lives
from tests.support.paths import BY_SPARK, ON_RAY
from tests.support.workspace import LARGE, Workspace, message

MESSAGES = 240  # a dozen shards of texts, and as many of rows


def _staged(state: Path) -> bool:
    return any(state.glob("work/*/extract/part-*.parquet"))


def _first_vectors(state: Path) -> bool:
    return any((state / "vectors" / "_delta_log").glob("*1.json"))


def _first_rows(state: Path) -> bool:
    return any((state / "published" / "_delta_log").glob("*1.json"))


def _stored(workspace: Workspace, table: str) -> tuple[int, int]:
    """Rows of a table, and how many of them are different texts (vectors) or chunks (the ledger)."""
    rows = State(workspace.root / "state").read(
        table, ["team_id", "content_hash" if table == "vectors" else "chunk_id"]
    )
    return len(rows), len(rows.group_by(rows.column_names).aggregate([]))


@pytest.fixture
def busy(workspace: Workspace) -> Workspace:
    """Enough shards that a kill finds each stage half done."""
    for part, folder in enumerate(("general", "random")):
        numbers = range(part, MESSAGES, 2)
        said = [message(n, f"report {n} of {n % 7} lines from desk {n % 13}", **LARGE) for n in numbers]
        workspace.day(folder, said)
    with workspace.config.open("a") as config:
        config.write("[index]\nshard_rows = 20\n")
    text = workspace.config.read_text()
    workspace.config.write_text(text.replace("[model]\n", ON_RAY + "[model]\nshard_tokens = 200\n"))
    return workspace


def _kill_when(workspace: Workspace, reached: Callable[[Path], bool]) -> list[psutil.Process]:
    """Start the run as its own process, kill it the moment ``reached`` sees its state; returns its children."""
    command = [sys.executable, "-m", "jobs.cli", "run", "--config", str(workspace.config), "--json"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not reached(workspace.root / "state"):
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the stage was never reached"
        time.sleep(0.002)
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    assert run.wait() == -9
    return children


@pytest.fixture(scope="session")
def engines() -> Iterator[list[psutil.Process]]:
    """Processes that the killed runs had started: gone at the end, without anybody's help.

    Ray's agent takes up to a minute to see that its cluster is gone, in which other tests go on.
    """
    started: list[psutil.Process] = []
    yield started
    deadline = time.monotonic() + 90
    while (left := [p for p in started if lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        process.kill()
    assert not left, "engines that outlive a killed run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reached", "by_spark"),
    [(_staged, False), (_staged, True), (_first_vectors, False), (_first_rows, False)],
    ids=["extract", "extract by Spark", "embed", "publish"],
)
def test_killed_run_is_simply_run_again(
    busy: Workspace, reached: Callable[[Path], bool], by_spark: bool, engines: list[psutil.Process]
) -> None:
    if by_spark:
        busy.config.write_text(busy.config.read_text().replace("[spark]\n", BY_SPARK))
    engines += _kill_when(busy, reached)
    stored, different = _stored(busy, "vectors")
    published, _ = _stored(busy, "published")
    assert stored == different
    match reached.__name__:
        case "_staged":
            assert stored == 0
        case "_first_vectors":
            assert 0 < stored < MESSAGES and published <= stored
        case "_first_rows":
            assert 0 < published <= stored < MESSAGES, "rows are published while the next texts are encoded"

    again = busy.run()
    assert again.code == 0, again
    assert again.body["chunks"]["embedded"] == again.body["chunks"]["total"] - stored
    rows, different = _stored(busy, "vectors")
    assert rows == different == again.body["chunks"]["total"], "a stored vector was encoded again"
    rows, different = _stored(busy, "published")
    assert rows == different == again.body["index_rows"]["after"]
    assert busy.verify().code == 0
