"""Alerts, their tests and the runbook belong together, and every command of the runbook runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from jobs.metrics.series import PREFIX
from tests.support.command_line import invoke
from tests.support.paths import ROOT
from tests.support.series import labels
from tests.support.workspace import Workspace

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "embedmill.rules.yaml").read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")[1:]}
COMMANDS = sorted({line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()})
PARTS = ("**Means**", "**Look**", "**Do**", "**Never**")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_waits_has_a_severity_and_a_page(rule: dict[str, Any]) -> None:
    assert rule["for"] and rule["labels"]["severity"] in ("page", "ticket")
    assert "$labels.index" in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert all(part in SECTIONS[rule["alert"]] for part in PARTS)


def test_alerts_name_series_that_there_are() -> None:
    named = {name for rule in RULES for name in re.findall(rf"\b{PREFIX}\w+", rule["expr"])}
    assert named <= labels().keys(), named - labels().keys()


def test_every_alert_is_tested() -> None:
    files = [yaml.safe_load(file.read_text()) for file in PROMETHEUS.glob("*.test.yaml")]
    fired = {
        one["alertname"]
        for file in files
        for test in file["tests"]
        for one in test["alert_rule_test"]
        if one["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in RULES}


def test_every_exit_code_has_a_page() -> None:
    for code in range(1, 6):
        assert all(part in SECTIONS[f"Exit code {code}"] for part in PARTS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "embedmill.rules.yaml"),
        ("test", "rules", "embedmill.test.yaml"),
        ("test", "rules", "serving.test.yaml"),
    ],
)
def test_prometheus_itself_takes_the_rules_and_fires_as_it_should(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_runbook_runs(
    ran: Workspace, command: str, monkeypatch: pytest.MonkeyPatch, encoder_here: None
) -> None:
    program, *words = command.split()
    assert program == "embedmill"
    monkeypatch.setenv("EMBEDMILL_CONFIG", str(ran.config))
    done = invoke(words)
    assert done.exit_code == 0, (command, done.stderr)
