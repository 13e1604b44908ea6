"""Whole runs with several endpoints, a budget, and batch jobs: nothing is lost, doubled or of another space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.run_details import kept_details
from jobs.telemetry.progress import Progress
from tests.support.bedrock_batch import Bedrock, bedrock
from tests.support.object_store import BUCKET, KEYS, Store
from tests.support.paths import ROOT
from tests.support.services import DIM, Server, serving
from tests.support.workspace import Ran, Workspace, message

MANY = 200


@pytest.fixture
def many(workspace: Workspace) -> Workspace:
    """More texts than a few requests take, in many shards and with two actors."""
    workspace.day("general", [message(n, f"message number {n} says {n * 7}") for n in range(MANY)])
    workspace.day("random", [])
    return workspace


def _model(workspace: Workspace, model: str, remote: str) -> None:
    text = workspace.config.read_text()
    before, _, after = text.partition('[model]\nbackend = "hash"\n')
    cache = f'cache = "{workspace.root / "models"}"\n'
    workspace.config.write_text(f"{before}[model]\n{model}{cache}{after}{remote}")


def _pair(workspace: Workspace, first: Server, second: Server, more: str = "") -> None:
    _model(
        workspace,
        'backend = "http"\nactors = 2\nshard_tokens = 100\n',
        f'[model.remote]\nmodel = "a-model"\ndim = {DIM}\nurl = "{first.url}"\nattempts = 4\nrequest_texts = 4\n'
        f'usd_per_million_tokens = 2.0\n{more}[[model.remote.fallbacks]]\nbackend = "http"\nmodel = "b-model"\n'
        f'url = "{second.url}"\nusd_per_million_tokens = 3.0\n',
    )


def _newest_report(workspace: Workspace) -> Any:
    """Of the run that began last, also of one that failed."""
    rows = Pipeline(load_config(workspace.config), Progress()).state.read("runs", ["started_at", "report"])
    return json.loads(rows.sort_by([("started_at", "descending")])["report"][0].as_py())


@pytest.mark.slow
def test_the_first_endpoint_dies_in_the_middle_and_the_next_one_ends_the_run(many: Workspace) -> None:
    with serving() as first, serving() as second:
        _pair(many, first, second)
        first.alive_for = 40  # of these 20 or 25 prove it, by how many actors come to work
        ran = many.run()
        assert ran.code == 0, ran
        stored = Counter(text for texts in second.requests for text in texts if text.startswith("message"))
        assert max(stored.values()) == 1, "none is asked twice of the one that answers"
        count = MANY + 2  # and the files
        assert ran.body["chunks"]["embedded"] == count == ran.body["index_rows"]["after"]
        cost = ran.body["cost"]
        by_name = {one["name"]: one for one in cost["endpoints"]}
        one, other = by_name["0 http a-model"], by_name["1 http b-model"]
        assert one["requests"] > 0 and one["opened"] >= 1 and other["requests"] > 0
        assert cost["texts"] == count and cost["requests"] == one["requests"] + other["requests"]
        assert cost["usd"] == pytest.approx((one["tokens"] * 2.0 + other["tokens"] * 3.0) / 1e6)
        assert many.verify().code == 0
        found = many.call("search", "message number 77 says 539", "--team", "T01", "--k", "1")
        assert found.body["hits"][0]["text"] == "message number 77 says 539"


def test_doctor_asks_every_endpoint(workspace: Workspace) -> None:
    def told() -> tuple[str, str]:
        checks = workspace.call("doctor").body["checks"]
        [model] = [one for one in checks if one["name"] == "model"]
        return model["status"], model["detail"]

    with serving() as first, serving() as second:
        _pair(workspace, first, second)
        status, detail = told()
        assert status == "ok" and detail.endswith("; all 2 endpoints are of one space")
        second.space = "another"
        status, detail = told()
        assert status == "failed" and "1 http b-model" in detail
        second.alive_for = 0
        status, detail = told()
        assert status == "warning" and detail.endswith("; endpoints that do not answer: 1 http b-model")


@pytest.mark.slow
def test_an_endpoint_of_another_space_stops_the_run_before_it_writes(many: Workspace) -> None:
    with serving() as first, serving() as second:
        second.space = "another"
        _pair(many, first, second)
        ran = many.run()
    assert ran.code == 5 and ran.body["error"]["kind"] == "SpaceMismatchError", ran
    assert ran.err.count("embedmill:") == 1 and "1 http b-model" in ran.err and second.url not in ran.err


@pytest.mark.slow
def test_a_budget_stops_a_run_between_shards_and_the_next_goes_on(many: Workspace) -> None:
    with serving() as first, serving() as second:
        tokens = 0.0002  # USD; at 2 USD for a million tokens, 100 tokens or about a shard
        _pair(many, first, second, f"max_usd = {tokens}\n")
        embedded, runs = 0, 0
        while True:
            ran = many.run()
            runs += 1
            if ran.code == 0:
                break
            assert ran.code == 5 and ran.body["error"]["kind"] == "BudgetError", ran
            assert "model.remote.max_usd" in ran.err and ran.err.count("embedmill:") == 1
            report = _newest_report(many)
            details = kept_details(Pipeline(load_config(many.config), Progress()).state.root, report["run_id"])
            assert details is not None
            shards = Counter(shard.worker for shard in details.shards)
            # What an actor's first shard costs, with the proof of its endpoint, is above the limit already.
            assert 1 <= len(shards) <= 2 and max(shards.values()) == 1, "a shard that was under way for each actor"
            assert report["cost"]["usd"] > tokens
            embedded += report["chunks"]["embedded"]
            assert report["chunks"]["embedded"] > 0, "each run gets on"
            assert runs < 40
        assert runs >= 2
        assert embedded + ran.body["chunks"]["embedded"] == MANY + 2 == ran.body["index_rows"]["after"]
        assert many.verify().code == 0
        texts = Counter(text for texts in first.requests for text in texts if text.startswith("message"))
        assert max(texts.values()) == 1 and len(texts) == MANY, "what was paid is kept"


# -- batch jobs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def service(moto: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bedrock]:
    with bedrock(moto) as found:
        ends = {"AWS_ENDPOINT_URL_S3": moto.uri, "AWS_ENDPOINT_URL_BEDROCK": found.url}
        for name, value in {**ends, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": found.url, **KEYS}.items():
            monkeypatch.setenv(name, value)
        yield found


def _batch(workspace: Workspace, prefix: str) -> None:
    _model(
        workspace,
        'backend = "bedrock"\n',
        f'[model.remote]\nmodel = "amazon.titan-embed-text-v2:0"\ndim = {DIM}\nregion = "eu-west-1"\nattempts = 3\n'
        f'usd_per_million_tokens = 2.0\n[model.remote.batch]\nuri = "s3://{BUCKET}/{prefix}"\nmin_texts = 100\n'
        'role_arn = "arn:aws:iam::123456789012:role/batch"\npoll_seconds = 0.1\n',
    )


def _files(moto: Store, prefix: str) -> list[str]:
    told = moto.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    return [one["Key"] for one in told.get("Contents", ())]


@pytest.mark.slow
def test_a_backfill_is_a_batch_job_and_a_nightly_run_is_not(many: Workspace, service: Bedrock, moto: Store) -> None:
    _batch(many, "backfill")
    bad = {f"message number {n} says {n * 7}" for n in (3, 4)}
    service.of_record = lambda text: "error" if text in bad else ""
    ran = _command(many, "run")
    assert ran.code == 0, ran
    assert ran.body["chunks"]["embedded"] == MANY + 2 == ran.body["index_rows"]["after"]
    cost = ran.body["cost"]
    assert len(service.jobs) == 1 and set(service.online) == bad
    [online, batch] = sorted(cost["endpoints"], key=lambda one: one["name"])
    assert batch["name"].startswith("batch ") and batch["usd"] == pytest.approx(batch["tokens"] / 1e6)
    assert online["usd"] == pytest.approx(online["tokens"] * 2.0 / 1e6) and cost["texts"] == MANY + 2
    assert _files(moto, "backfill") == [] and many.verify().code == 0

    many.day("random", [message(900, "one more of today")])
    more = _command(many, "run")
    assert more.code == 0 and more.body["chunks"]["embedded"] == 1 and len(service.jobs) == 1


@pytest.mark.slow
def test_a_run_that_is_killed_while_its_job_works_finds_the_job(many: Workspace, service: Bedrock, moto: Store) -> None:
    _batch(many, "killed")
    service.looks = 10_000
    _kill_at_work(many, service)
    assert len(service.jobs) == 1 and _files(moto, "killed")
    service.jobs[0].looks = 2
    ran = _command(many, "run")
    assert ran.code == 0 and len(service.jobs) == 1 and service.online == [], ran
    assert ran.body["chunks"]["embedded"] == MANY + 2 == ran.body["index_rows"]["after"]
    assert _files(moto, "killed") == [] and many.verify().code == 0


@pytest.mark.slow
def test_a_purge_removes_what_a_killed_run_left_in_the_bucket(many: Workspace, service: Bedrock, moto: Store) -> None:
    _batch(many, "purged")
    service.looks = 10_000
    _kill_at_work(many, service)
    assert _files(moto, "purged")
    purged = many.call("purge", "--team", "T01")
    assert purged.code == 0, purged
    assert _files(moto, "purged") == [] and service.jobs[0].status == "Stopped"


def _command(workspace: Workspace, *arguments: str) -> Ran:
    """A command in a process of its own: the actors of a Ray that runs already know nothing of these servers."""
    command = [sys.executable, "-m", "jobs.cli", *arguments, "--config", str(workspace.config), "--json"]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    return Ran(ran.returncode, json.loads(ran.stdout), ran.stderr)


def _kill_at_work(workspace: Workspace, service: Bedrock) -> None:
    command = [sys.executable, "-m", "jobs.cli", "run", "--config", str(workspace.config)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    log = Path(workspace.root / "killed.log")
    with log.open("wb") as sink:
        child = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, start_new_session=True)
    until = time.monotonic() + 120
    while not (service.jobs and service.jobs[0].status != "Submitted"):
        assert child.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
