"""Status says of a run that has not ended whether it still works or was killed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobs.cli import lookup
from jobs.commands.status import status
from jobs.run_session import open_session
from jobs.scope import Scope
from tests.support.command_line import invoke
from tests.support.in_process import Death, Killed, open_pipeline
from tests.support.workspace import Workspace, writing


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


def test_what_is_promised_is_met_or_missed(ran: Workspace, encoder_here: None) -> None:
    assert ran.call("status").body["levels"] == [] and ran.call("status", "--check").code == 0
    ran.config.write_text(ran.config.read_text() + "[slo]\nlag_hours = 2\ncoverage = 0.999\n")
    met = ran.call("status", "--check")
    assert met.code == 0 and [(one["name"], one["met"]) for one in met.body["levels"]] == [
        ("lag_hours", True),
        ("coverage", True),
    ]
    writing(open_pipeline(ran.config).state).drop("published", "true")
    missed = ran.call("status", "--check")
    assert missed.code == 4 and missed.body["levels"][1] == {
        "name": "coverage",
        "target": 0.999,
        "value": 0.0,
        "met": False,
        "missed_runs": 0,
    }


def test_before_the_first_run_a_promise_is_missed(workspace: Workspace, encoder_here: None) -> None:
    workspace.config.write_text(workspace.config.read_text() + "[slo]\nlag_hours = 2\n")
    told = workspace.call("status", "--check")
    [level] = told.body["levels"]
    assert told.code == 4 and level == {
        "name": "lag_hours",
        "target": 2.0,
        "value": None,
        "met": False,
        "missed_runs": 0,
    }
    assert workspace.call("status", "--watch", "1").code == 2, "what is watched is for a person"


def test_what_was_missed_by_runs_in_a_row_is_told_apart(ran: Workspace, encoder_here: None) -> None:
    """A nightly task fails where it was missed twice, and not for one bad night."""
    kept = ran.config.read_text()
    codes = []
    for hours in (1e-9, 1e-9, 24, 1e-9):
        ran.config.write_text(f"{kept}[slo]\nlag_hours = {hours}\n")
        ran.run()
        codes.append([ran.call("status", "--check", "--runs", str(count)).code for count in (0, 1, 2)])
        assert ran.run("--team", "T99").code in (0, 2), "a run over a part of the sources is none of them"
    assert codes == [[4, 4, 0], [4, 4, 4], [0, 0, 0], [4, 4, 0]]
    assert ran.call("status").body["levels"][0]["missed_runs"] == 1


@pytest.mark.parametrize(
    ("words", "seconds"),
    [(["--watch"], 5.0), (["--watch", "--check"], 5.0), (["--watch", "2"], 2.0), (["--watch=0.5"], 0.5)],
)
def test_status_is_shown_anew_every_five_seconds_or_as_often_as_asked(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, words: list[str], seconds: float
) -> None:
    class Enough(Exception):
        pass

    slept: list[float] = []

    def sleep(asked: float) -> None:
        slept.append(asked)
        if len(slept) == 2:
            raise Enough

    monkeypatch.setattr(lookup, "time", SimpleNamespace(sleep=sleep))
    for order in ([*words, "--config", str(workspace.config)], ["--config", str(workspace.config), *words]):
        slept.clear()
        with pytest.raises(Enough):
            invoke(["status", *order])
        assert slept == [seconds, seconds]


def test_status_alone_takes_the_configuration_of_the_environment(workspace: Workspace) -> None:
    assert invoke(["status"], {"EMBEDMILL_CONFIG": str(workspace.config)}).stdout.startswith("space ")


def test_what_is_no_time_between_two_looks_is_refused(workspace: Workspace) -> None:
    for words in (["--watch", "-1"], ["--watch", "often"], ["--watch=-1"], ["--watch", "1e12"]):
        assert invoke(["status", *words, "--config", str(workspace.config)]).exit_code == 2
