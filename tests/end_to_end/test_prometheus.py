"""From a run to the person on call, with the real programs: pushed, scraped, judged, and told with the runbook's page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.metrics.series import PREFIX
from jobs.state.lease import holder
from tests.support.dashboards import RUNS, draw, expressions
from tests.support.in_process import open_pipeline
from tests.support.paths import ROOT
from tests.support.prometheus import MISSING, Prometheus, quick_waits, until
from tests.support.workspace import Workspace, writing

pytestmark = [
    pytest.mark.usefixtures("encoder_here"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed (Debian): {MISSING}"),
]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    started = Prometheus(folder, quick_waits)
    yield started
    started.stop()


def test_a_run_is_seen_and_one_that_is_killed_wakes_somebody(
    workspace: Workspace, chain: Prometheus, tmp_path: Path
) -> None:
    text = workspace.config.read_text()
    workspace.config.write_text(f'{text}[telemetry]\npushgateway = "{chain.gateway}"\n[slo]\ncoverage = 0.5\n')
    assert workspace.run().code == 0
    embedded = f'{PREFIX}last_run_chunks{{outcome="embedded"}}'
    until(lambda: chain.query(embedded), "a sample of the run")
    [found] = chain.query(embedded)
    assert (found["metric"]["job"], found["metric"]["index"], found["value"][1]) == ("embedmill", "messages", "8")
    told = {one["metric"]["__name__"] for one in chain.query(f'{{__name__=~"{PREFIX}.*"}}')}
    assert {
        f"{PREFIX}{name}" for name in ("coverage_ratio", "lag_seconds", "state_bytes", "run_duration_seconds")
    } <= told

    say_more(workspace)
    until(lambda: not unanswered(chain), f"an answer to each panel's query: {unanswered(chain)}")
    for name, words in draw(chain.address, tmp_path, RUNS).items():
        assert "no data" not in words and len(words) > 10, name
    kill_a_run(workspace)
    until(lambda: any(one["labels"]["alertname"] == "EmbedmillNoSuccess" for one in chain.fired), "the alert")
    [alert] = [one for one in chain.fired if one["labels"]["alertname"] == "EmbedmillNoSuccess"][:1]
    assert alert["status"] == "firing" and alert["labels"]["severity"] == "page"
    assert alert["annotations"]["runbook_url"] == "docs/runbook.md#embedmillnosuccess"
    assert not [one for one in chain.fired if one["labels"]["alertname"] == "EmbedmillCoverage"]


def unanswered(chain: Prometheus) -> list[str]:
    """Expressions of the dashboards that Prometheus has no answer to."""
    return [one for one in expressions(RUNS) if not chain.query(one.replace("$index", ".*"))]


def say_more(workspace: Workspace) -> None:
    """Have something in quarantine, a run that encoded enough to tell its speed, and a verify."""
    state = open_pipeline(workspace.config).state
    [row] = state.read("runs").to_pylist()
    report = json.loads(row["report"])
    report["tokens"]["embedded"], report["encode_seconds"] = 20_000, 20.0
    told = {**row, "run_id": "earlier", "report": json.dumps(report), "started_at": row["started_at"] - 1}
    writing(state).change("runs", [{**told, "_delete": False}])
    (workspace.files / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    assert workspace.run().code == 3
    assert workspace.verify().code == 0


def kill_a_run(workspace: Workspace) -> None:
    """Start a run that has something to do, and kill it once it holds the lease."""
    workspace.day("general", [{**one, "text": f"{one['text']} again"} for one in workspace.messages("general")])
    words = [sys.executable, "-m", "jobs.cli", "run", "--config", str(workspace.config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    until(lambda: holder(workspace.root / "state"), "the run holds the lease")
    run.send_signal(signal.SIGKILL)
    run.wait()
