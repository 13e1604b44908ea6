"""A real Airflow over the sample: triggers by REST, backfills, and jobs, schedulers and tasks that die on the way.

One Airflow and one state serve all tests, so each of them leaves the index equal to the sources; the hash encoder stands
in for the model, which tests/dags/test_dags.py runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.config import load_config
from jobs.state.state_folder import state_root
from jobs.state.watermark import WATERMARK
from tests.support.airflow_server import Airflow, copy_sample, embedmill
from tests.support.paths import BY_SPARK
from tests.support.warm_command import WarmCommand

pytestmark = pytest.mark.slow

DAGS = ("nightly", "backfill", "reindex", "purge", "train")
DAYS = ("--from-date", "2025-03-03", "--to-date", "2025-03-07")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sample(tmp_path_factory.mktemp("airflow-sample"))


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmCommand]:
    """What jobs start: the console script; while a test does them, all but the one that makes a version live."""
    command = WarmCommand(own=["--activate"])
    yield command
    command.close()


@pytest.fixture(scope="module")
def airflow(config: Path, warm: WarmCommand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    server = Airflow(
        tmp_path_factory.mktemp("airflow"),
        {
            "EMBEDMILL_CONFIG": str(config),
            "EMBEDMILL__MODEL__BACKEND": "hash",
            "EMBEDMILL_COMMAND": warm.command,
            "EMBEDMILL__TRAINING__MAX_EXPOSURE": "10",  # beside few pairs the planted ones count for much
        },
    )
    try:
        for dag in DAGS:
            server.unpause(f"embedmill_{dag}")
        yield server
    finally:
        server.stop()


@pytest.fixture
def by_spark(config: Path) -> Iterator[None]:
    """Jobs start Spark: one without an engine has ended before a test sees it."""
    text = config.read_text()
    config.write_text(text.replace("[spark]\n", BY_SPARK))
    yield
    config.write_text(text)


def verify(config: Path, *scope: str) -> tuple[int, Any]:
    return embedmill(config, "verify", "--wait", "300", *scope, EMBEDMILL__MODEL__BACKEND="hash")


def status(config: Path) -> Any:
    return embedmill(config, "status", EMBEDMILL__MODEL__BACKEND="hash")[1]


def backfill(airflow: Airflow, *more: str) -> list[str]:
    """Create a backfill over five days, newest first and in parallel; returns its runs when all have ended."""
    airflow.command(
        "backfill",
        "create",
        "--dag-id",
        "embedmill_backfill",
        *DAYS,
        "--run-backwards",
        "--max-active-runs",
        "3",
        *more,
    )
    listing = "dags/embedmill_backfill/dagRuns?run_type=backfill&limit=50&order_by=-logical_date"
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        """All runs have, and the scheduler has seen it, which it looks for twice a minute; until then no other begins."""
        found[:] = airflow.api("GET", listing).json()["dag_runs"]
        created = airflow.api("GET", "backfills?dag_id=embedmill_backfill").json()["backfills"]
        over = len(created) > 0 and all(one["completed_at"] for one in created)
        return over and len(found) >= 5 and all(run["state"] in ("success", "failed") for run in found)

    airflow.wait("the backfill", ended, 600)
    assert [run["state"] for run in found] == ["success"] * 5
    return [run["dag_run_id"] for run in found]


def jobs(word: str) -> list[psutil.Process]:
    """Running embedmill processes of a DAG run, by what its run id holds."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in word)
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if any("embedmill" in part for part in line[:2]) and any(name in part for part in line):
            found.append(process)
    return found


def nightly(airflow: Airflow, config: Path) -> str:
    """Begin a run that plans, although nothing may have changed."""
    (state_root(load_config(config)) / WATERMARK).unlink(missing_ok=True)
    return airflow.trigger("embedmill_nightly")


def running(airflow: Airflow, run: str) -> psutil.Process:
    """The job of a run that is at work: its engine has started. A step with nothing to read starts none."""
    found: list[psutil.Process] = []

    def at_work() -> bool:
        for job in jobs(run):
            try:
                if any(child.name() == "java" for child in job.children(recursive=True)):
                    found.append(job)
            except psutil.NoSuchProcess:
                continue
        return bool(found)

    airflow.wait("a job at work", at_work, 180)
    return found[0]


@pytest.mark.long
@pytest.mark.usefixtures("by_spark")
def test_a_backfill_in_any_order_equals_the_sources_and_the_same_again_embeds_nothing(
    airflow: Airflow, config: Path
) -> None:
    runs = backfill(airflow)
    assert sum(airflow.xcom("embedmill_backfill", run, "embed")["chunks"]["embedded"] for run in runs) > 100
    code, body = verify(config, "--since", "2025-03-03", "--until", "2025-03-08")
    assert (code, body["status"]) == (0, "ok") and body["checked"] == status(config)["tables"]["published"]
    vectors = status(config)["tables"]["vectors"]
    for run in backfill(airflow, "--reprocess-behavior", "completed"):
        assert airflow.xcom("embedmill_backfill", run, "plan")["empty"]
        states = {name: one["state"] for name, one in airflow.tasks("embedmill_backfill", run).items()}
        assert states["publish"] == states["verify"] == "skipped"
    assert status(config)["tables"]["vectors"] == vectors


@pytest.mark.long
@pytest.mark.usefixtures("by_spark")
def test_nightly_and_backfill_at_once_take_turns(airflow: Airflow, config: Path) -> None:
    started = {
        "embedmill_nightly": airflow.trigger("embedmill_nightly"),
        "embedmill_backfill": airflow.trigger("embedmill_backfill", since="2025-03-08", until="2025-03-12"),
    }
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, sum(len(jobs(run)) for run in started.values()))
        states = [airflow.api("GET", f"dags/{dag}/dagRuns/{run}").json()["state"] for dag, run in started.items()]
        return all(state in ("success", "failed") for state in states)

    airflow.wait("both", ended, 600)
    assert [airflow.ended(dag, run) for dag, run in started.items()] == ["success", "success"]
    assert most == 1, "two jobs wrote at the same time"
    code, body = verify(config)
    assert (code, body["status"]) == (0, "ok")


def test_a_reindex_by_rest_moves_the_alias(airflow: Airflow, warm: WarmCommand, config: Path) -> None:
    """Each task launches its job as a process. What five of six do is done here, where the engines run already."""
    before = status(config)["index"]["live"]
    path = "dags/embedmill_reindex/dagRuns"
    refused = airflow.api("POST", path, {"logical_date": None, "conf": {"reason": "x"}})
    assert refused.status_code in (400, 422) and "reason" in refused.text
    refused = airflow.api("POST", path, {"logical_date": None, "conf": {"reason": "to see", "teams": ["a/b"]}})
    assert refused.status_code in (400, 422) and "teams" in refused.text
    assert (
        airflow.api("POST", path, {"logical_date": None, "conf": {"reason": "to see"}}, token=False).status_code == 401
    )
    with warm.listening():
        run = airflow.trigger("embedmill_reindex", reason="to see that it works", index="messages")
        assert airflow.ended("embedmill_reindex", run, jobs=warm) == "success"
    report = airflow.xcom("embedmill_reindex", run, "activate")
    assert report["activated"] and report["gate"]["passed"] and report["previous"] == before
    assert status(config)["index"]["live"] == report["index"] != before
    assert airflow.xcom("embedmill_reindex", run, "gate")["gate"]["passed"]


@pytest.mark.long
@pytest.mark.usefixtures("by_spark")
def test_a_job_that_is_killed_fails_its_task_and_the_retry_ends_well(airflow: Airflow, config: Path) -> None:
    run = nightly(airflow, config)
    running(airflow, run).kill()
    assert airflow.ended("embedmill_nightly", run) == "success"
    tries = {name: one["try_number"] for name, one in airflow.tasks("embedmill_nightly", run).items()}
    assert sorted(tries.values())[-1] == 2
    assert verify(config)[0] == 0


@pytest.mark.long
@pytest.mark.usefixtures("by_spark")
def test_a_scheduler_that_dies_is_started_again_and_nothing_is_doubled(airflow: Airflow, config: Path) -> None:
    run = nightly(airflow, config)
    running(airflow, run)
    airflow.kill("scheduler")
    time.sleep(2)
    airflow.start("scheduler")
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, len([job for job in jobs(run) if job.is_running()]))
        return airflow.api("GET", f"dags/embedmill_nightly/dagRuns/{run}").json()["state"] in ("success", "failed")

    airflow.wait(run, ended, 300)
    assert airflow.ended("embedmill_nightly", run) == "success"
    assert verify(config)[0] == 0
    tables = status(config)["tables"]
    assert tables["published"] % tables["chunks"] == 0, "a row of the ledger is there twice"


@pytest.mark.usefixtures("by_spark")
def test_a_task_that_is_marked_failed_takes_its_processes_with_it(airflow: Airflow, config: Path) -> None:
    run = nightly(airflow, config)
    job = running(airflow, run)
    tree = [job, *job.children(recursive=True)]
    task = next(name for name, one in airflow.tasks("embedmill_nightly", run).items() if one["state"] == "running")
    path = f"dags/embedmill_nightly/dagRuns/{run}/taskInstances/{task}"
    airflow.api("PATCH", path, {"new_state": "failed"}).raise_for_status()
    _, alive = psutil.wait_procs(tree, timeout=30)
    assert not alive
    assert airflow.ended("embedmill_nightly", run) == "failed"


def test_a_failure_says_the_command_to_rerun_by_hand(airflow: Airflow) -> None:
    run = airflow.trigger("embedmill_reindex", reason="to see it refused", index="another")
    assert airflow.ended("embedmill_reindex", run) == "failed"
    log = airflow.log("embedmill_reindex", run, "extract")
    assert "by hand: embedmill step extract --build --run-id reindex-" in log
    assert "the configuration's index is 'messages', not 'another'" in log
    assert airflow.tasks("embedmill_reindex", run)["extract"]["try_number"] == 1, "it would be refused again"


@pytest.mark.long
def test_a_purge_by_rest_leaves_its_receipt(airflow: Airflow, config: Path) -> None:
    run = airflow.trigger("embedmill_purge", team="T02BIRCH")
    assert airflow.ended("embedmill_purge", run) == "failed", "a whole team goes only where that was said"
    log = airflow.log("embedmill_purge", run, "purge")
    assert "give one of them, or set whole_team" in log and "purge failed (try 1)" in log
    run = airflow.trigger("embedmill_purge", team="T02BIRCH", before="2025-03-11")
    assert airflow.ended("embedmill_purge", run) == "success"
    receipt = airflow.xcom("embedmill_purge", run, "purge")
    assert receipt["removed"]["chunks"] > 0 and receipt["removed"]["index"] > 0
    assert verify(config)[0] == 0


@pytest.mark.long
def test_a_model_is_trained_approved_by_rest_and_an_index_of_it_is_asked_for(
    airflow: Airflow, warm: WarmCommand, config: Path
) -> None:
    pairs = config.parent / "pairs.jsonl"
    rooms = [(f"where is the key of room {n}", f"the key of room {n} lies in drawer {n * 7}") for n in range(60)]
    pairs.write_text("".join(json.dumps({"anchor": asked, "positive": said}) + "\n" for asked, said in rooms))
    airflow.api("PATCH", "dags/embedmill_reindex", {"is_paused": True}).raise_for_status()
    states = {}
    for choice in ("Reject", "Approve"):
        with warm.listening():
            run = airflow.trigger("embedmill_train", reason=f"to see it, {choice}", name="rooms", pairs=str(pairs))
            question = f"dags/embedmill_train/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"

            def asked(run: str = run) -> bool:
                """The task waits, and the scheduler has seen it: Airflow 3.3 takes one that is answered sooner for failed."""
                while warm.answer():
                    pass
                seen = f"TaskInstance Finished: dag_id=embedmill_train, task_id=approve, run_id={run}"
                return seen in (airflow.root / "scheduler.log").read_text()

            airflow.wait("the question", asked, 120)
            body = airflow.api("GET", question).json()["body"]
            made = airflow.xcom("embedmill_train", run, "train")
            assert made["model"] in body and f"{made['evaluation']['after']} now" in body and choice in body
            assert airflow.xcom("embedmill_train", run, "gate") | {"former": None} == {
                "model": made["model"],
                "alias": "champion",
                "promoted": False,
                "reasons": [],
                "former": None,
            }
            airflow.api("PATCH", question, {"chosen_options": [choice]}).raise_for_status()
            if choice == "Approve":
                asked_for = index_of(airflow, made["model"])
                assert embedmill(config, "promote", "rooms", "--check")[1].get("former") is None, "the alias moves last"
                ended = airflow.api("PATCH", f"dags/embedmill_reindex/dagRuns/{asked_for}", {"state": "success"})
                ended.raise_for_status()
            assert airflow.ended("embedmill_train", run, jobs=warm) == "success"
        states[choice] = {name: one["state"] for name, one in airflow.tasks("embedmill_train", run).items()}
    assert (states["Reject"]["promote"], states["Reject"]["reindex"]) == ("skipped", "skipped")
    promoted = airflow.xcom("embedmill_train", run, "promote")
    assert promoted["promoted"] and promoted["model"] == made["model"] == "models:/rooms/2"
    airflow.unpause("embedmill_reindex")


def index_of(airflow: Airflow, model: str) -> str:
    """The run of embedmill_reindex that is asked for a model; it is paused."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = airflow.api("GET", "dags/embedmill_reindex/dagRuns?state=queued").json()["dag_runs"]
        return bool(found)

    airflow.wait("an index", there, 60)
    [run] = found
    assert run["dag_run_id"].startswith(f"train__{model[-1]}__") and run["conf"]["model"] == model
    return str(run["dag_run_id"])
