"""What a person reads who makes a mistake in the arguments: one line that says what to do, and exit code 2."""

from __future__ import annotations

import sys

import pytest

from jobs import cli


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
