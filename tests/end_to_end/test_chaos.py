"""A bounded part of `make chaos`: its own machinery with two kills, and that it would see what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.telemetry.progress import Progress
from tests.chaos.__main__ import series
from tests.chaos.faults import kill_driver
from tests.chaos.world import VERSION, Outcome, World


@pytest.mark.long
def test_a_run_that_is_killed_and_run_again_leaves_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    world, outcome = World(tmp_path, seed=7), Outcome()
    world.recover(outcome)
    series(world, kill_driver, 2, outcome, print)
    assert outcome.tried >= 2 and outcome.bad == 0 and outcome.repeated <= 1

    # A row that is lost behind everybody's back shows up in the figures.
    pipeline = Pipeline(load_config(world.hit.config), Progress())
    pipeline.index().delete(VERSION, [next(iter(pipeline.index().scan(VERSION)))["chunk_id"][0].as_py()])
    pipeline.close()
    world.compare(outcome)
    assert outcome.lost == outcome.bad == 1
