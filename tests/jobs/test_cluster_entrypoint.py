"""What a launcher starts on a cluster: the marked outcome, and a driver that `spark-submit` started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest

from jobs.config import load_config
from jobs.engines.class_archive import ClassArchive, check_java
from tests.support.paths import ROOT
from tests.support.workspace import Workspace

MAIN_FILE = ROOT / "jobs" / "cli" / "cluster_entrypoint.py"
SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"
MARK = "embedmill-outcome-0123"


@pytest.fixture(autouse=True)
def _dags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))


def launched(*words: str | Path, mark: str = MARK) -> subprocess.CompletedProcess[str]:
    """Run to its end, with standard output and error in one text as on a cluster."""
    marked = {"EMBEDMILL_OUTCOME_MARK": mark} if mark else {}
    return subprocess.run(
        [*map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, "EMBEDMILL_DEBUG": ""} | marked,
    )


def outcome(ran: subprocess.CompletedProcess[str], mark: str = MARK) -> Any:
    from embedmill_airflow.launchers.outcome import outcome

    return outcome(ran.stdout, mark)


FAULT = ("step", "plan", "--run-id", "r", "--json", "--config", "nowhere.toml")


def test_the_outcome_is_one_marked_line_and_the_exit_code_is_kept() -> None:
    ran = launched(sys.executable, "-m", "jobs.cli.cluster_entrypoint", *FAULT)
    found = outcome(ran)
    assert (ran.returncode, found.code, found.body["error"]["kind"]) == (2, 2, "ConfigError")
    assert ran.stdout.count(MARK) == 1 and ran.stdout.splitlines()[-1].startswith(f"{MARK} ")


def test_without_a_mark_it_is_the_command_line() -> None:
    ran = launched(sys.executable, "-m", "jobs.cli.cluster_entrypoint", *FAULT, mark="")
    assert ran.returncode == 2 and ran.stdout.splitlines()[-1].startswith('{"error": ')


def test_what_is_no_object_is_shown_and_is_no_report() -> None:
    ran = launched(sys.executable, "-m", "jobs.cli.cluster_entrypoint", "--help")
    assert outcome(ran).body is None and "Exit codes: 0 done" in ran.stdout


@pytest.mark.parametrize("log", ["", f"{MARK} {{", f'{MARK} {{"code": 0}}', f'{MARK}4 {{"code": 0, "body": {{}}}}'])
def test_a_line_that_is_not_whole_or_another_s_is_no_outcome(log: str) -> None:
    from embedmill_airflow.launchers.outcome import outcome

    assert outcome(f"before\n{log}\nafter", MARK) is None


def test_a_log_that_is_read_again_is_shown_once_and_without_the_mark(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    from embedmill_airflow.launchers.outcome import Shown

    caplog.set_level(logging.INFO)
    shown = Shown(logging.getLogger("task"), MARK)
    for piece in ("one\ntw", "o\nth"):
        shown.add(piece)
    shown.again()  # the connection broke
    for piece in ("one\n", "two\nthree\n", f'\n{MARK} {{"code": 0}}\nfour'):
        shown.add(piece)
    shown.end()
    assert [record.getMessage() for record in caplog.records] == ["one", "two", "three", "four"]


def quick_java(workspace: Workspace) -> tuple[str, str]:
    """What starts the JVM in half the time, as in a run that spark-submit did not start."""
    archive = ClassArchive(load_config(workspace.config).cache, check_java(), complete=False).options()
    return "--driver-java-options", f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {archive}"


DRIVER = """
import sys
from pathlib import Path
from jobs.config import load_config
from jobs.engines.spark import start_spark
folder = Path(sys.argv[2])
spark = start_spark(load_config(Path(sys.argv[1])), folder / "scratch", folder / "log", reads=False)
conf = spark.sparkContext.getConf()
print("FOUND", spark.sparkContext.master, conf.get("spark.driver.host"), spark.conf.get("spark.sql.session.timeZone"))
"""


@pytest.mark.slow
def test_spark_submit_s_master_and_driver_host_are_kept(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    words = (tmp_path / "driver.py", workspace.config, tmp_path)  # whose master is local[2]
    own = launched(sys.executable, *words)
    assert "FOUND local[2] 127.0.0.1 UTC" in own.stdout, own.stdout[-3000:]
    given = ("--master", "local[1]", "--conf", "spark.driver.host=localhost")
    submitted = launched(SUBMIT, *given, *quick_java(workspace), *words)
    assert "FOUND local[1] localhost UTC" in submitted.stdout, submitted.stdout[-3000:]


@pytest.mark.slow
def test_the_main_file_of_an_application_runs_under_spark_submit(workspace: Workspace) -> None:
    with workspace.config.open("a") as config:  # eight documents are small work, which a cluster does not look for
        config.write(
            '[spark.properties]\n"spark.sql.shuffle.partitions" = "1"\n"spark.sql.codegen.wholeStage" = "false"\n'
        )
    words = ("step", "extract", "--run-id", "r", "--json", "--config", workspace.config)
    java = quick_java(workspace)
    ran = launched(SUBMIT, "--master", "local[1]", *java, MAIN_FILE, *words)
    found = outcome(ran)
    assert ran.returncode == 0 and found is not None, ran.stdout[-3000:]
    assert found.code == 0 and found.body["documents"]["read"] == 8, found
    refused = launched(SUBMIT, "--master", "local[1]", *java, MAIN_FILE, *FAULT)
    assert (refused.returncode, outcome(refused).code) == (2, 2)
