"""A real `embedmill serve` beside the test, asked over HTTP as its users ask it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jwt
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from tests.support.ports import free_ports

SECRET = "a-secret-of-the-tests-of-thirty-two-bytes"
START_SECONDS = 120.0


@dataclass(frozen=True)
class Answered:
    """A status, a body (JSON where it is some) and the headers, their names in small letters."""

    status: int
    body: Any
    headers: dict[str, str]


def token(team: str | list[str] | None, *, key: str = SECRET, seconds: float = 600, **more: Any) -> str:
    """A token as an identity provider signs it."""
    claims = {"sub": "u1", "exp": time.time() + seconds} | ({} if team is None else {"team": team}) | more
    return jwt.encode(claims, key, algorithm="HS256")


class Serving:
    """The command in a process of its own, until ``stop`` or the end of a block. ``log`` is all that it has said.

    It is ready when this returns, or has said the words to ``wait_for``.
    """

    def __init__(self, config: Path, *, host: str = "127.0.0.1", wait_for: str = "", **settings: str) -> None:
        [self.port] = free_ports(1)
        self._log = config.parent / "serve.log"
        environment = {f"EMBEDMILL__SERVE__{name.upper()}": value for name, value in settings.items()}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "jobs.cli",
                    "serve",
                    "--config",
                    str(config),
                    "--host",
                    host,
                    "--port",
                    str(self.port),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )
        self._wait(wait_for)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _wait(self, words: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if words in self.log if words else self.get("/readyz").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"it does not serve: {self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> Answered:
        return self._ask(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}"))

    def post(self, path: str, body: Any, bearer: str = "", **headers: str) -> Answered:
        """Names of headers have "_" for a dash. A body of bytes is sent as it is."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= {"authorization": f"Bearer {bearer}"} if bearer else {}
        return self._ask(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, given))

    def told(self, series: str, **labels: str) -> float:
        """The value of a series of `/metrics`, named without its prefix; 0 for one that is not there yet."""
        families = text_string_to_metric_families(self.get("/metrics").body)
        found = [one for family in families for one in family.samples if one.name == f"embedmill_serve_{series}"]
        return sum(one.value for one in found if labels.items() <= one.labels.items())

    def _ask(self, request: urllib.request.Request) -> Answered:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return _answered(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            return _answered(error.code, error.read(), dict(error.headers))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def _answered(status: int, data: bytes, headers: dict[str, str]) -> Answered:
    try:
        body = json.loads(data)
    except ValueError:
        body = data.decode()
    return Answered(status, body, {name.lower(): value for name, value in headers.items()})
