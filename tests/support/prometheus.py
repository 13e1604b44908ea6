"""Prometheus, a Pushgateway and an Alertmanager as processes, and a webhook that is called when an alert fires."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT
from tests.support.ports import free_ports

PROGRAMS = ("prometheus", "prometheus-pushgateway", "prometheus-alertmanager")
MISSING = ", ".join(name for name in PROGRAMS if shutil.which(name) is None)


class Prometheus:
    """The chain, in ``folder``. Its rules are ours with shorter waits: ``quick`` changes their text.

    ``engines`` are exporters that it scrapes too: their path by host and port.
    """

    def __init__(self, folder: Path, quick: Callable[[str], str], engines: Mapping[str, str] | None = None) -> None:
        self._engines = dict(engines or {})
        self.ports = dict(zip(("gateway", "prometheus", "alerts", "cluster"), free_ports(4), strict=True))
        self.fired: list[dict[str, Any]] = []
        self._webhook = _webhook(self.fired)
        self._processes: list[subprocess.Popen[bytes]] = []
        rules = (ROOT / "deploy" / "prometheus" / "embedmill.rules.yaml").read_text()
        (folder / "rules.yaml").write_text(quick(rules))
        self._write(folder / "prometheus.yaml", self._prometheus())
        self._write(folder / "alertmanager.yaml", self._alertmanager())
        try:
            self._start(folder, "prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{self.ports['gateway']}")
            self._start(
                folder,
                "prometheus-alertmanager",
                f"--config.file={folder / 'alertmanager.yaml'}",
                f"--storage.path={folder / 'alerts'}",
                f"--web.listen-address=127.0.0.1:{self.ports['alerts']}",
                "--cluster.listen-address=",
            )
            self._start(
                folder,
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'series'}",
                f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
            )
            for name in ("gateway", "prometheus", "alerts"):
                until(lambda name=name: self._ready(name), f"{name} answers")  # type: ignore[misc]
        except BaseException:
            self.stop()
            raise

    @property
    def gateway(self) -> str:
        """Where metrics are pushed to."""
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def address(self) -> str:
        """Of Prometheus itself."""
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers: a list of ``metric`` and ``value``."""
        words = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = self._get(f"api/v1/query?{words}")["data"]["result"]
        return found

    def stop(self) -> None:
        """End all of it."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._webhook.shutdown()
        self._webhook.server_close()

    def _prometheus(self) -> dict[str, Any]:
        target = [{"targets": [f"127.0.0.1:{self.ports['gateway']}"]}]
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "pushgateway", "honor_labels": True, "static_configs": target},
                *(
                    {"job_name": at, "metrics_path": path, "static_configs": [{"targets": [at]}]}
                    for at, path in self._engines.items()
                ),
            ],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self.ports['alerts']}"]}]}]},
        }

    def _alertmanager(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._webhook.server_port}/"
        route = {"receiver": "us", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        return {"route": route, "receivers": [{"name": "us", "webhook_configs": [{"url": url}]}]}

    def _write(self, file: Path, said: dict[str, Any]) -> None:
        file.write_text(yaml.safe_dump(said))

    def _start(self, folder: Path, *words: str) -> None:
        with (folder / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
            )

    def _ready(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}/{path}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def until(true: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait; AssertionError where it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.2)


def quick_waits(rules: str) -> str:
    """Rules whose waits are a second, and whose two days without success are five seconds."""
    return re.sub(r"for: \w+", "for: 1s", rules).replace("2 * 86400", "5")


def _webhook(fired: list[dict[str, Any]]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fired.extend(body["alerts"])
            self.send_response(200)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
