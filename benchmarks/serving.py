"""Serving queries under load: latency at 0.7 of the encoder's own speed, peers side by side, and a rush.

    make bench-serving                                     # everything, into docs/serving.md (a quarter of an hour)
    .venv/bin/python benchmarks/serving.py --only rush     # one of rate, peers, rush

k6 sends at a rate, whatever the answers; server and k6 share the machine. Texts are as long as real chat messages, no
two the same, and no query is remembered. Exit 1 where a verdict fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chats
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import serving_page
from spine import MODEL, ROOT, SEED, environment, machine, run_command, write_config

sys.path.insert(0, str(ROOT))

from embedding.models.packaged import model_path  # noqa: E402
from tests.support.ports import free_ports  # noqa: E402

HERE = Path(__file__).resolve().parent
THREADS = os.cpu_count() or 1
SHARE = 0.7  # of the encoder's own speed, that queries come at
SPIKE = 5  # times the rate that is kept up
P99_MS = 200.0  # kept up is a rate whose p99 is within this, with every request answered by 200
DEADLINE_MS = 2_000  # `serve.deadline_seconds`, as it is by itself
STEP_SECONDS, RATE_SECONDS, SPIKE_SECONDS = 8, 60, 60
CONNECTIONS, SPIKE_CONNECTIONS = 300, 2_000

Told = dict[str, Any]


def main() -> int:
    """Measure, print, write the page; 1 where a verdict fails."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        bench = Bench(Path(folder), options)
        found: Told = {"machine": machine(), "own": bench.own()}
        for group in options.only.split(","):
            found[group] = getattr(bench, group)(found)
    text, well = serving_page.report(found)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if options.page:
        serving_page.write(options.page, text)
    return int(not well)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="rate,peers,rush", metavar="GROUP,…", help="of rate, peers, rush (all)")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-bench", metavar="FOLDER", help="environment of k6")
    parser.add_argument("--infinity", type=Path, default=ROOT / ".venv-infinity", metavar="FOLDER", help="of infinity")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    parser.add_argument("--page", type=Path, metavar="FILE", help="the page to bring up to date")
    return parser.parse_args()


class Bench:
    """The groups; each takes what was found before and returns its figures."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder, self._options = folder, options
        model = model_path(MODEL)
        self._queries = chats.make_texts(20_000, model, seed=SEED)
        (folder / "queries.json").write_text(json.dumps(self._queries))
        pq.write_table(pa.table({"text": self._queries}), folder / "queries.parquet")
        chats.make_export(folder / "export", 2_000, model, seed=SEED)
        self._config = write_config(folder, "auto", "state", "milvus.db")
        run_command(self._config, folder, look=False)

    # -- groups ------------------------------------------------------------------------------------------------------

    def own(self) -> Told:
        """Queries a second of the encoder alone, all of them in one call."""
        command = [sys.executable, HERE / "ours/encoder.py", self._folder / "queries.parquet", self._folder / "models"]
        ran = subprocess.run(
            [*map(str, command), str(THREADS)], check=True, capture_output=True, text=True, env=environment()
        )
        told = json.loads(ran.stdout)
        return {"queries": len(self._queries) / told["seconds"], "tokens": told["tokens"] / told["seconds"]}

    def rate(self, found: Told) -> Told:
        """Latency at a share of the encoder's own speed."""
        rate = SHARE * found["own"]["queries"]
        with self._ours() as (url, _):
            self._load(url, [(rate / 2, 5)])
            return {"rate": rate, **self._load(url, [(rate, RATE_SECONDS)])}

    def peers(self, found: Told) -> Told:
        """The highest rate that each server keeps up, twice in turns, the better of the two."""
        servers: dict[str, Callable[[], Any]] = {"embedmill": self._ours, "fastapi": self._fastapi}
        if (self._options.infinity / "bin/infinity_emb").exists():
            servers["infinity"] = self._infinity
        kept: dict[str, list[Told]] = {name: [] for name in servers}
        for _ in range(2):
            for name, server in servers.items():
                with server() as (url, _):
                    kept[name].append(self._most(url, name))
        return {name: max(runs, key=lambda run: run["rate"]) for name, runs in kept.items()}

    def rush(self, found: Told) -> Told:
        """A spike in a steady rate: what becomes of its requests, of memory, and of those that come after it."""
        with self._ours() as (url, process):
            kept = found["peers"]["embedmill"]["rate"] if "peers" in found else self._most(url, "embedmill")["rate"]
            calm = [(kept / 2, 10)]
            self._load(url, calm)
            with _watched(process) as calm_memory:
                self._load(url, calm)
            with _watched(process) as memory, _probed(url) as probes:
                began = time.monotonic()
                told = self._load(url, [*calm, (SPIKE * kept, SPIKE_SECONDS), (kept / 2, 20)], SPIKE_CONNECTIONS)
            end = began + calm[0][1] + SPIKE_SECONDS + 1  # k6 takes about a second to begin
        slow = [at for at, status, ms in probes if at > end and (status != 200 or ms > P99_MS)]
        recovery = max(slow) - end if slow else 0.0
        return {
            "kept": kept,
            "recovery": recovery,
            "memory_before": max(calm_memory),
            "memory": max(memory),
            "probes": len(probes),
            **told,
        }

    # -- servers -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _ours(self) -> Iterator[tuple[str, psutil.Process]]:
        command = [sys.executable, "-m", "jobs.cli", "serve", "--config", str(self._config), "--port"]
        with self._server(command, "/v1/embeddings") as served:
            yield served

    @contextmanager
    def _fastapi(self) -> Iterator[tuple[str, psutil.Process]]:
        command = [str(self._options.peers / "bin/python"), str(HERE / "peers/fastapi_server.py")]
        with self._server(command, "/v1/embeddings") as served:
            yield served

    @contextmanager
    def _infinity(self) -> Iterator[tuple[str, psutil.Process]]:
        command = [str(self._options.infinity / "bin/infinity_emb"), "v2", "--model-id", str(model_path(MODEL))]
        command += ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--log-level", "error"]
        with self._server([*command, "--host", "127.0.0.1", "--port"], "/embeddings", "/health") as served:
            yield served

    @contextmanager
    def _server(
        self, command: Sequence[str], route: str, ready: str = "/readyz"
    ) -> Iterator[tuple[str, psutil.Process]]:
        [port] = free_ports(1)
        given = {"EMBEDMILL__SERVE__CACHED_QUERIES": "0", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        with (self._folder / "server.log").open("w") as log:
            process = subprocess.Popen(
                [*command, str(port)], stdout=log, stderr=log, env={**environment(), **given}, cwd=ROOT
            )
        try:
            _until_ready(process, f"http://127.0.0.1:{port}{ready}", self._folder / "server.log")
            yield f"http://127.0.0.1:{port}{route}", psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()

    # -- load --------------------------------------------------------------------------------------------------------

    def _most(self, url: str, name: str) -> Told:
        """The highest rate that is kept up: doubled until it is not, then halved in between, to a twelfth."""
        kept: Told = {"rate": 0.0}
        good, bad, rate = 0.0, float("inf"), 25.0
        self._load(url, [(rate, 5)])
        while bad > good * 1.08:
            told = self._load(url, [(rate, STEP_SECONDS)])
            if ok := _kept_up(told) or _kept_up(told := self._load(url, [(rate, STEP_SECONDS)])):
                good, kept = rate, {"rate": rate, **told}
            else:
                bad = rate
            print(f"{name}: {rate:.0f}/s {'kept up' if ok else 'not kept up'}, {told['ms']}", file=sys.stderr)
            if bad <= 1:
                break
            rate = 2 * good if bad == float("inf") else (good + bad) / 2
        return kept

    def _load(self, url: str, stages: Sequence[tuple[float, int]], connections: int = CONNECTIONS) -> Told:
        """What k6 says after rates (a second) for so many seconds each."""
        given = {
            "ROUTES": url,
            "STAGES": ",".join(f"{round(rate)}:{seconds}" for rate, seconds in stages),
            "QUERIES": str(self._folder / "queries.json"),
            "DEADLINE_MS": str(DEADLINE_MS),
            "CONNECTIONS": str(connections),
        }
        k6 = [str(self._options.peers / "bin/k6"), "run", "--quiet", "--no-usage-report", "--address", ""]
        named = [part for name, value in given.items() for part in ("-e", f"{name}={value}")]
        ran = subprocess.run(
            [*k6, *named, str(HERE / "load.js")], check=True, capture_output=True, text=True, cwd=self._folder
        )
        told: Told = json.loads(ran.stdout.splitlines()[-1])
        return told


def _kept_up(told: Told) -> bool:
    others = sum(count for status, count in told["statuses"].items() if status != "200")
    return bool(told["ms"]["p99"] <= P99_MS and not others and not told["unsent"])


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"a server did not start: {log.read_text()[-1000:]}")


@contextmanager
def _watched(process: psutil.Process) -> Iterator[list[float]]:
    """Resident memory of a process during the block, in MB, twice a second."""
    seen = [process.memory_info().rss / 2**20]
    with _repeated(0.5, lambda: seen.append(process.memory_info().rss / 2**20)):
        yield seen


@contextmanager
def _probed(url: str) -> Iterator[list[tuple[float, int, float]]]:
    """Requests of one more user during the block, ten a second: when, status, ms."""
    seen: list[tuple[float, int, float]] = []

    def ask() -> None:
        body = b'{"input": "how are the others served"}'
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        began = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        except OSError:
            status = 0
        seen.append((began, status, (time.monotonic() - began) * 1000))

    with _repeated(0.1, ask):
        yield seen


@contextmanager
def _repeated(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def again() -> None:
        while not stop.wait(seconds):
            call()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
