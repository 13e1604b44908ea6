"""The DAG files: what every one of them has, what parsing one costs, and a run of each over the sample."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.config import load_config
from jobs.state.state_folder import state_root
from tests.support.airflow_server import Airflow, copy_sample, embedmill
from tests.support.canary import Canary, places
from tests.support.paths import ROOT
from tests.support.warm_command import WarmCommand

CANARY = Canary()

# Run in a Python of its own: it shows what parsing imports, file by file.
LOOK = """
import json, sys, time
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
folder = Path(sys.argv[1])
BundleDagBag(folder / "embedmill_nightly.py", bundle_path=folder, bundle_name="dags")  # Airflow's own imports are not the file's
found = {"errors": {}, "seconds": {}, "dags": {}}
for file in sorted(folder.glob("*.py")):
    start = time.process_time()  # of the processor: a busy machine makes no file slow
    bag = BundleDagBag(file, bundle_path=folder, bundle_name="dags")
    found["seconds"][file.name] = time.process_time() - start
    found["errors"] |= bag.import_errors
    for dag in bag.dags.values():
        found["dags"][dag.dag_id] = {
            "tags": sorted(dag.tags), "doc": dag.doc_md or "",
            "tasks": {
                task.task_id: {
                    "owner": task.owner, "retries": task.retries, "pool": task.pool, "kind": type(task).__name__,
                    "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
                    "alerts": [type(one).__name__ for one in task.on_failure_callback or ()],
                    "weight": task.priority_weight, "outlets": [one.name for one in task.outlets],
                }
                for task in dag.tasks
            },
        }
found["heavy"] = sorted({"pyspark", "ray", "torch", "kubernetes", "jobs"} & set(sys.modules))
print("FOUND" + json.dumps(found))
"""


def look(folder: Path, home: Path) -> Any:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "EMBEDMILL"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, str(folder)], env=environment, cwd=home, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("FOUND"))[5:])


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return look(ROOT / "dags", tmp_path_factory.mktemp("parse"))


def test_every_dag_loads_and_parsing_imports_no_engine(parsed: Any) -> None:
    assert parsed["errors"] == {} and parsed["heavy"] == []
    assert sorted(parsed["dags"]) == [
        f"embedmill_{name}" for name in ("backfill", "nightly", "purge", "reindex", "train")
    ]
    assert max(parsed["seconds"].values()) < 1.0, parsed["seconds"]


ENGINES = {"embedmill_backfill": "pyspark", "embedmill_purge": "ray", "embedmill_reindex": "torch"}


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is found of DAG files each of which imports another engine; none of these imports another one."""
    home = tmp_path_factory.mktemp("heavy")
    shutil.copytree(ROOT / "dags", home / "dags")
    for name, engine in ENGINES.items():
        file = home / "dags" / f"{name}.py"
        text = file.read_text()
        assert text.count("\nfrom airflow.sdk import ") == 1
        file.write_text(text.replace("\nfrom airflow.sdk import ", f"\nimport {engine}\nfrom airflow.sdk import "))
    return look(home / "dags", home)


@pytest.mark.parametrize("engine", ["pyspark", "ray", "torch"])
def test_a_dag_that_imports_an_engine_is_found_out(heavy: Any, engine: str) -> None:
    assert heavy["errors"] == {} and engine in heavy["heavy"]


def test_every_task_has_an_owner_a_timeout_retries_and_an_alert(parsed: Any) -> None:
    for dag_id, dag in parsed["dags"].items():
        assert dag["tags"] == ["embedmill"] and len(dag["doc"]) > 100, dag_id
        for task_id, task in dag["tasks"].items():
            where = f"{dag_id}.{task_id}"
            assert task["owner"] == "ml-infrastructure" and task["alerts"] == ["FailureNotifier"], where
            if task["kind"] == "EmbedmillOperator":
                assert task["retries"] == 2 and task["timeout"] == 12 * 3600, where
                pool = {"embedmill_reindex": "embedmill_build", "embedmill_train": "default_pool"}.get(
                    dag_id, "embedmill"
                )
                assert task["pool"] == ("default_pool" if task_id == "promises" else pool), where
            elif task["kind"] != "ApprovalOperator":  # a person may take longer
                assert task["timeout"], where


def test_what_a_person_waits_for_goes_before_the_backfill(parsed: Any) -> None:
    weights = {
        dag_id.removeprefix("embedmill_"): [t["weight"] for t in dag["tasks"].values() if t["pool"] != "default_pool"]
        for dag_id, dag in parsed["dags"].items()
    }
    order = ("backfill", "nightly", "reindex", "purge")
    for later, sooner in zip(order, order[1:], strict=False):
        assert max(weights[later]) < min(weights[sooner])


def printed_by(script: str, home: Path) -> str:
    """What a script prints after FOUND, run with the DAGs' folder on its path, in a Python of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'dags')!r})\n{script}"],
        env=os.environ | {"AIRFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert "FOUND " in ran.stdout, ran.stderr[-2000:]
    return ran.stdout.split("FOUND ", 1)[1].strip()


def test_a_budget_of_nothing_is_a_budget(tmp_path: Path) -> None:
    script = "from embedmill_airflow.params import budget; print('FOUND', budget({'max_tokens': 0, 'max_usd': None}))"
    assert printed_by(script, tmp_path) == "['--max-tokens', '0']"


def test_the_schedule_s_own_backfill_runs_do_nothing(tmp_path: Path) -> None:
    """The schedule is there for the intervals of `airflow backfill create`; a new day is the nightly run's."""
    script = (
        "from types import SimpleNamespace as N\n"
        "from airflow.utils.types import DagRunType as T\n"
        "from embedmill_backfill import asked_for\n"
        "print('FOUND', [asked_for.function(dag_run=N(run_type=t)) for t in (T.SCHEDULED, T.MANUAL, T.BACKFILL_JOB)])"
    )
    assert printed_by(script, tmp_path) == "[False, True, True]"


def test_the_nightly_run_tells_who_follows_the_index(parsed: Any) -> None:
    assert parsed["dags"]["embedmill_nightly"]["tasks"]["verify"]["outlets"] == ["embedmill_index"]


# -- over the sample, with the model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, with a text that no log of Airflow may hold."""
    config = copy_sample(tmp_path_factory.mktemp("dags-sample"))
    day = config.parent / "fernwood" / "general" / "2025-03-03.json"
    said = {"type": "message", "user": "U01ANNA001", "ts": "1740990000.000100", "text": f"A canary: {CANARY.text}"}
    day.write_text(json.dumps([*json.loads(day.read_text()), said]))
    return config


@pytest.fixture(scope="module")
def airflow(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    environment = {
        "EMBEDMILL_CONFIG": str(config),
        "EMBEDMILL__TELEMETRY__PAGES": "true",
        "EMBEDMILL_PAGES_URL": "https://pages.test/embedmill/",
    }
    yield Airflow(tmp_path_factory.mktemp("dags-test"), environment, serve=False)


@pytest.fixture(scope="module")
def jobs() -> Iterator[WarmCommand]:
    command = WarmCommand()
    yield command
    command.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dag", "conf", "verified"),
    [
        (
            "backfill",
            {"since": "2025-03-03", "until": "2025-03-08"},
            ("--since", "2025-03-03", "--until", "2025-03-08"),
        ),
        ("nightly", {}, ()),
        ("reindex", {"reason": "a test of the DAG"}, ()),
        ("purge", {"team": "T02BIRCH", "before": "2025-03-11"}, ()),
    ],
)
def test_a_dag_over_the_sample_ends_in_success_and_the_index_is_true(
    airflow: Airflow, jobs: WarmCommand, config: Path, dag: str, conf: dict[str, Any], verified: tuple[str, ...]
) -> None:
    """Each task launches its job as a process, which this one does the work of; some of test_airflow's do all by themselves."""
    printed = airflow.command("dags", "test", f"embedmill_{dag}", "--conf", json.dumps(conf), jobs=jobs)
    assert re.search(rf"Marking run <DagRun embedmill_{dag} .*> successful", printed), printed[-3000:]
    assert not CANARY.found_in(printed.encode()) and not places({"canary": CANARY}, airflow.root)
    code, body = embedmill(config, "verify", *verified)
    assert (code, body["status"]) == (0, "ok"), body
    links = linked(airflow, f"embedmill_{dag}")
    assert links.keys() >= {"extract" if dag != "purge" else "purge"}
    pages = {file.name for file in state_root(load_config(config)).glob("reports/*.html")}
    assert {link.removeprefix("https://pages.test/embedmill/") for link in links.values()} <= pages
    assert "promises" not in links, "what only looks has no page"


def linked(airflow: Airflow, dag_id: str) -> dict[str, str]:
    """The addresses that a DAG's tasks have on their button, by task."""
    with closing(sqlite3.connect(airflow.root / "airflow.db")) as database:
        rows = database.execute("select task_id, value from xcom where key = 'run_page' and dag_id = ?", [dag_id])
        return {task: json.loads(value) for task, value in rows if json.loads(value)}


def test_a_promise_that_was_missed_twice_fails_the_task_and_says_so(tmp_path: Path) -> None:
    script = """
from types import SimpleNamespace as N
from airflow.sdk.exceptions import AirflowFailException
from embedmill_airflow.launchers import Outcome
from embedmill_nightly import nightly
task = nightly().get_task("promises")
context = {"ti": N(xcom_push=lambda key, value: None), "dag_run": N(dag_id="embedmill_nightly", run_id="r")}
assert task._conclude(context, Outcome(0, {"levels": []})) == {"levels": []}
words = task.job(context).arguments
try:
    task._conclude(context, Outcome(4, {"levels": [{"name": "lag_hours", "met": False}]}))
except AirflowFailException as error:
    print("FOUND", *words, error)
"""
    assert printed_by(script, tmp_path) == (
        "status --check --runs 2 --json exit 4: a promise of [slo] was missed at the end of the last two runs, and is now; "
        "see `report`"
    )
