"""What the query service tells of itself."""

from __future__ import annotations

import asyncio

from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.serve.metrics import ServeMetrics
from jobs.serve.spaces import Spaces
from jobs.telemetry.progress import Progress
from tests.support.ports import free_ports
from tests.support.workspace import Workspace


def test_an_index_that_cannot_be_asked_is_told(workspace: Workspace) -> None:
    index = f'[index]\nuri = "http://127.0.0.1:{free_ports(1)[0]}"\nname = "away"\n'
    workspace.config.write_text(workspace.config.read_text() + index)
    config = load_config(workspace.config)
    said: list[str] = []
    told = ServeMetrics(config)
    told.reached.set(1)
    asyncio.run(Spaces(Pipeline(config, Progress()), told, said.append).refresh())
    assert 'embedmill_serve_index_reached{index="away"} 0.0' in told.text().decode()
    assert len(said) == 1


def test_the_label_is_that_of_the_runs(workspace: Workspace) -> None:
    workspace.config.write_text(workspace.config.read_text() + '[telemetry]\ninstance = "second"\n')
    told = ServeMetrics(load_config(workspace.config), replica="r1").text().decode()
    assert 'embedmill_serve_index_reached{index="second",replica="r1"} 0.0' in told
