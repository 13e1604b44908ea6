"""Status says of a run that has not ended whether it still works or was killed."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.run import status
from jobs.scope import Scope
from tests.in_process import Death, Killed, open_mill
from tests.workspace import Workspace


def last(space: Workspace) -> tuple[str, str]:
    run: dict[str, Any] = status(open_mill(space.config))["last_runs"][0]
    return run["command"], run["status"]


def test_a_run_is_running_while_it_holds_the_lease_and_killed_after(workspace: Workspace) -> None:
    with open_mill(workspace.config).writing("run", Scope(), 0.0) as (report, _):
        assert last(workspace) == ("run", "running")
        report.status = "ok"
    assert last(workspace) == ("run", "ok")
    dying = open_mill(workspace.config, Death(ahead_of="vectors"))
    with pytest.raises(Killed), dying.writing("gc", Scope(), 0.0):
        dying.state.drop("vectors", "true")
    assert last(workspace) == ("gc", "killed")
    with open_mill(workspace.config).writing("run", Scope(), 0.0):
        pass
    told = status(open_mill(workspace.config))["last_runs"]
    assert [run["status"] for run in told] == ["failed", "killed", "ok"], "one that ended in a fault is neither"
