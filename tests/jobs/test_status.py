"""Status says of a run that has not ended whether it still works or was killed."""

from __future__ import annotations

import pytest

from jobs.commands.status import status
from jobs.run_session import open_session
from jobs.scope import Scope
from tests.support.in_process import Death, Killed, open_pipeline
from tests.support.workspace import Workspace


def last(space: Workspace) -> tuple[str, str]:
    run = status(open_pipeline(space.config)).last_runs[0]
    return run.command, run.status


def test_a_run_is_running_while_it_holds_the_lease_and_killed_after(workspace: Workspace) -> None:
    with open_session(open_pipeline(workspace.config), "run", Scope(), 0.0) as session:
        assert last(workspace) == ("run", "running")
        session.report.status = "ok"
    assert last(workspace) == ("run", "ok")
    dying = open_pipeline(workspace.config, Death(ahead_of="vectors"))
    with pytest.raises(Killed), open_session(dying, "gc", Scope(), 0.0):
        dying.state.drop("vectors", "true")
    assert last(workspace) == ("gc", "killed")
    with open_session(open_pipeline(workspace.config), "run", Scope(), 0.0):
        pass
    told = status(open_pipeline(workspace.config)).last_runs
    assert [run.status for run in told] == ["failed", "killed", "ok"], "one that ended in a fault is neither"
