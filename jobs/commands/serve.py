"""The command ``serve``: vectors of queries, and searches, over HTTP."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from embedding.errors import ConfigError
from jobs.pipeline import Pipeline


def serve(pipeline: Pipeline, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until a signal. Raises ConfigError where anybody on the network could ask as any tenant."""
    settings = pipeline.config.serve
    if not (settings.jwt_key.get_secret_value() or settings.jwt_public_key or settings.open or _is_loopback(host)):
        raise ConfigError(
            f"serve: {host} is reached from elsewhere, and nothing says who asks; set serve.jwt_public_key, or "
            "serve.open = true where a proxy in front of it checks each request and its team"
        )
    try:
        from jobs.serve.server import serve as run
    except ImportError as error:
        raise ConfigError(f'serve: {error.name} is not installed; run `pip install "embedmill[serve]"`') from None
    if "://" not in pipeline.config.index.uri:
        say("index.uri: Milvus Lite serves one process at a time; no run can write until this ends")
    run(pipeline, host, port, say)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
