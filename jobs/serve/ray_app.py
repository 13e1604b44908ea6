"""The query service on Ray Serve: the application of ``embedmill serve`` in each replica.

A RayService names ``jobs.serve.ray_app:build``; its arguments may have ``config``, the configuration's file, which is
else that of EMBEDMILL_CONFIG. Ray Serve drains replicas, and asks them how they are.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from ray import serve
from ray.serve import Application
from starlette.applications import Starlette

from jobs.config import default_config_file, load_config
from jobs.pipeline import Pipeline
from jobs.serve.access import check_reach
from jobs.serve.app import Service
from jobs.serve.metrics import ServeMetrics
from jobs.serve.spaces import Spaces
from jobs.telemetry.progress import Progress


def build(args: Mapping[str, str]) -> Application:
    """The application that Ray Serve runs. Raises ConfigError for a configuration that cannot be served to others."""
    file = Path(args["config"]) if "config" in args else default_config_file()
    settings = check_reach(load_config(file))
    # A replica refuses by itself what it has no place for; Ray queues nothing in front of it.
    deployment = serve.deployment(name="queries", max_ongoing_requests=settings.requests)
    return deployment(serve.ingress(lambda: _application(file))(_Queries)).bind()


class _Queries:
    """A replica: all that it does is the application."""


def _application(file: Path) -> Starlette:
    pipeline = Pipeline(load_config(file), Progress())
    told = ServeMetrics(pipeline.config, serve.get_replica_context().replica_id.unique_id)
    spaces = Spaces(pipeline, told, _say)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        try:
            async with spaces.following():
                yield
        finally:
            pipeline.close()

    return Service(pipeline, spaces, told, _say).app(life)


def _say(line: str) -> None:
    print(f"embedmill: {line}", file=sys.stderr, flush=True)
