"""The command ``serve``: vectors of queries, and searches, over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from embedding.errors import ConfigError
from jobs.pipeline import Pipeline
from jobs.serve.access import check_reach


def serve(pipeline: Pipeline, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until a signal. Raises ConfigError where anybody on the network could ask as any tenant."""
    check_reach(pipeline.config, host)
    try:
        from jobs.serve.server import serve as run
    except ImportError as error:
        raise ConfigError(f'serve: {error.name} is not installed; run `pip install "embedmill[serve]"`') from None
    run(pipeline, host, port, say)
