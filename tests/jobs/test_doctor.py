"""`doctor` finds what would stop a run, names it with the fix, and changes nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from indexers import open_index
from jobs.config import load_config
from jobs.engines.tested import TESTED
from tests.support.command_line import invoke
from tests.support.object_store import Moto
from tests.support.paths import ROOT
from tests.support.workspace import TEAM, Workspace, named_in

pytestmark = pytest.mark.usefixtures("encoder_here")
CHECKS = ["configuration", "versions", "java", "memory", "model", "state", "sources[0]", "sources[1]", "index"]


def doctor(space: Workspace) -> tuple[int, dict[str, Any], dict[str, tuple[str, str, str]]]:
    told = space.call("doctor")
    checks = {one["name"]: (one["status"], one["detail"], one["fix"]) for one in told.body["checks"]}
    assert all(fix if status != "ok" else not fix for status, _, fix in checks.values()), "what is not well has a fix"
    return told.code, told.body, checks


def test_all_is_well_before_the_first_run_and_after(workspace: Workspace) -> None:
    code, body, checks = doctor(workspace)
    assert (code, body["status"], list(checks)) == (0, "ok", CHECKS), body
    assert "made by the first run" in checks["index"][1] and "partitions" in checks["sources[1]"][1]
    assert workspace.run().code == 0
    code, body, checks = doctor(workspace)
    assert (code, body["status"]) == (0, "ok") and "messages is messages__v1 with 8 rows" in checks["index"][1]
    assert "8 chunks" in checks["state"][1]


def test_a_wrong_configuration_is_one_failure_and_nothing_is_opened(workspace: Workspace) -> None:
    workspace.config.write_text(workspace.config.read_text().replace('backend = "hash"', 'backend = "hush"'))
    code, body, checks = doctor(workspace)
    assert (code, body["status"], list(checks)) == (1, "failed", ["configuration", "versions"])
    assert "model.backend: 'hush' is not one of" in checks["configuration"][1]


def test_one_failure_keeps_no_other_check_from_being_made(ran: Workspace) -> None:
    for file in (ran.root / "state" / "vectors" / "_delta_log").iterdir():
        file.unlink()
    for file in ran.files.iterdir():
        file.unlink()
    code, body, checks = doctor(ran)
    assert (code, list(checks)) == (1, CHECKS)
    assert checks["state"][0] == "failed" and "verify --repair" in checks["state"][2]
    assert checks["sources[1]"][0] == "failed" and "never taken for a deletion" in checks["sources[1]"][1]
    assert (checks["sources[0]"][0], checks["index"][0]) == ("ok", "ok")


def test_an_index_of_another_state_is_named(ran: Workspace) -> None:
    config = load_config(ran.config)
    index = open_index("milvus", config.index_uri, config.index.name)
    index.set_owner("messages__v1", "f" * 32)
    index.close()
    code, _, checks = doctor(ran)
    assert code == 1 and "belongs to state ffff" in checks["index"][1] and "takeover" in checks["index"][2]


def test_an_index_of_another_space_is_a_warning(ran: Workspace) -> None:
    ran.config.write_text(ran.config.read_text().replace("[model]\n", "[model]\nmax_tokens = 32\n"))
    code, body, checks = doctor(ran)
    assert (code, body["status"], checks["index"][0]) == (0, "warning", "warning")
    assert "embedmill reindex" in checks["index"][2]


def test_a_version_that_was_not_tested_and_one_that_is_missing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TESTED, "numpy", "0.9")
    _, body, checks = doctor(workspace)
    assert body["status"] == "warning" and "(tested: 0.9)" in checks["versions"][1]
    monkeypatch.setitem(TESTED, "no-such-package", "1")
    assert doctor(workspace)[2]["versions"][:2] == ("failed", "not installed: no-such-package")


def test_the_tested_versions_are_those_of_the_lock() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", "\n".join(lines), re.MULTILINE))
    assert {name: locked[name] for name in TESTED} == TESTED


def test_without_java_a_small_run_works_and_a_large_one_does_not(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert doctor(workspace)[2]["java"][0] == "warning"
    monkeypatch.setenv("EMBEDMILL__SPARK__IN_PROCESS_MB", "0")
    code, _, checks = doctor(workspace)
    assert code == 1 and checks["java"][0] == "failed" and "no Java found; install Java" in checks["java"][1]


def test_more_actors_than_cores_are_told(workspace: Workspace) -> None:
    many = len(os.sched_getaffinity(0)) + 1
    workspace.config.write_text(workspace.config.read_text().replace("[model]\n", f"[model]\nactors = {many}\n"))
    status, detail, _ = doctor(workspace)[2]["memory"]
    assert status == "warning" and f"{many} actors" in detail


def test_a_state_in_a_store_has_its_clock_looked_at(workspace: Workspace, moto: Moto) -> None:
    workspace.config.write_text(workspace.config.read_text() + moto.config("states/doctor"))
    code, _, checks = doctor(workspace)
    assert code == 0 and checks["clock"][0] == "ok" and checks["state"][0] == "ok", checks
    assert not [key for key in moto.path("states/doctor").sizes() if "proof" in key]


def test_a_person_reads_a_line_a_check(workspace: Workspace) -> None:
    said = invoke(["doctor", "--config", str(workspace.config)])
    assert said.exit_code == 0 and said.stdout.splitlines()[-1] == f"{len(CHECKS)} checks: all well"
    assert not named_in(said.stdout, TEAM)


def test_a_container_s_limit_counts_and_not_the_machine_s_memory(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, said in {"memory.max": "1000000000", "memory.current": "700000000", "cpu.max": "100000 100000"}.items():
        (tmp_path / name).write_text(said)
    monkeypatch.setattr("jobs.commands.doctor.CGROUP", tmp_path)
    status, detail, _ = doctor(workspace)[2]["memory"]
    assert status == "warning" and detail.startswith("300 of 1,000 MB free, 1 cores")
    (tmp_path / "memory.max").write_text("max")
    assert not doctor(workspace)[2]["memory"][1].startswith("300 of 1,000")
