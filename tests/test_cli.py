"""What a person reads who makes a mistake in the arguments: one line that says what to do, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli
from tests.workspace import Workspace


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["search", "where is the key"], "--team"),
        (["run", "--jsn"], "--json"),
        (["rn"], "run"),
        (["run", "--wait", "long"], "--wait"),
        (["run", "--kind", "letter"], "--kind"),
        (["purge"], "--team"),
    ],
)
def test_usage_error_is_one_line(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["embedmill", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("embedmill: ")
    assert named in said.err


def test_no_command_shows_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["embedmill"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "reconcile" in capsys.readouterr().err.lower()


def test_an_output_that_cannot_be_written_is_one_line_and_no_success(workspace: Workspace) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs.cli", "status", "--config", str(workspace.config)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == "embedmill: standard output cannot be written: No space left on device\n"
