"""What a person reads who makes a mistake in the arguments: one line that says what to do, and exit code 2."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedding.errors import ConfigError
from jobs.cli import app
from jobs.state.store import State
from tests.support.paths import ROOT
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["search", "where is the key"], "--team"),
        (["run", "--jsn"], "--json"),
        (["rn"], "run"),
        (["run", "--wait", "long"], "--wait"),
        (["run", "--wait", "-1"], "--wait"),
        (["run", "--kind", "letter"], "--kind"),
        (["purge"], "--team"),
    ],
)
def test_usage_error_is_one_line(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["embedmill", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("embedmill: ")
    assert named in said.err


@pytest.mark.parametrize(
    "arguments",
    [["rn"], ["search", "words"], ["run", "--jsn"], ["run", "--wait", "long"], ["purge"], ["gc", "--keep", "1"]],
)
def test_usage_error_is_an_object_for_a_machine(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["embedmill", *arguments, "--json"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert (ended.value.code, error["exit_code"], error["kind"]) == (2, 2, "UsageError")
    assert said.err == f"embedmill: {error['message']}\n"


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["embedmill", "--version"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    assert re.fullmatch(r"embedmill \d+\.\d+.*\n", capsys.readouterr().out)


def piped(*arguments: str | bytes, reads: int = 0, given: bytes = b"") -> tuple[int, str]:
    """Exit code and standard error of a command whose output is not read past some bytes."""
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as ran:
        assert ran.stdin and ran.stdout and ran.stderr
        ran.stdin.write(given)
        ran.stdin.close()
        ran.stdout.read(reads)
        ran.stdout.close()
        said = ran.stderr.read().decode()
        return ran.wait(60), said


def test_reader_that_has_read_enough_ends_the_command_in_silence(workspace: Workspace) -> None:
    """As `cat | head`: nothing on standard error, and the exit code of a broken pipe."""
    assert piped("--help") == (141, "")
    with workspace.config.open("a") as config:  # so much that it is printed before the end
        config.write("[spark.properties]\n" + "".join(f'"spark.some.{n}" = "{"x" * 100}"\n' for n in range(3000)))
    assert piped("config", "--config", str(workspace.config), reads=5) == (141, "")
    assert piped("config", "--json", "--config", str(workspace.config)) == (141, "")


def test_query_that_is_not_utf8_is_refused(workspace: Workspace) -> None:
    team = ["--team", "T01", "--config", str(workspace.config)]
    refused = (2, "embedmill: TEXT: what was given is not UTF-8\n")
    assert piped("search", b"caf\xe9", *team) == refused
    assert piped("search", "-", *team, given=b"caf\xe9") == (2, "embedmill: TEXT: standard input is not UTF-8\n")
    assert piped("search", "words", "--team", b"T\xff", "--config", str(workspace.config))[0] == 2


@pytest.mark.parametrize(
    ("key", "good"),
    [("", True), ("ab", False), ("ab" * 15, False), ("ab" * 16, True), ("ab" * 64, True), ("ab" * 65, False)],
)
def test_hash_key_is_long_enough_to_be_one(tmp_path: Path, key: str, good: bool) -> None:
    if good:
        State(tmp_path / "state", hash_key=key)
    else:
        with pytest.raises(ConfigError, match="^state.hash_key: give 32 to 128 hexadecimal digits") as refused:
            State(tmp_path / "state", hash_key=key)
        assert key not in str(refused.value)


@pytest.mark.parametrize("arguments", [["search", "words", "--team", TEAM], ["verify"], ["evaluate", "{golden}"]])
def test_before_the_first_run_what_asks_the_index_says_to_run(workspace: Workspace, arguments: list[str]) -> None:
    golden = workspace.root / "golden.jsonl"
    golden.write_text(json.dumps({"query": "words", "team": TEAM, "relevant": {f"{TEAM}/f/notes.txt": 1}}))
    told = workspace.call(*(one.format(golden=golden) for one in arguments))
    message = "index messages has no live version yet; run `embedmill run` first"
    assert told.body == {"error": {"kind": "ConfigError", "exit_code": 2, "message": message}}
    assert (told.code, told.err) == (2, f"embedmill: {message}\n")


# -- names with a slip -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "plan", "verify"])
def test_scope_that_is_nowhere_is_refused(ran: Workspace, command: str) -> None:
    for scope, line in (
        (["--team", "T10"], "--team: there is no team 'T10' in any source, text or row; known: T01"),
        (["--team", "T01", "--team", "t01"], "--team: there is no team 't01' in any source, text or row; known: T01"),
        (
            ["--channel", "general"],
            "--channel: there is no channel 'general' in any source, text or row; known: C1, C2",
        ),
    ):
        refused = ran.call(command, *scope)
        assert (refused.code, refused.body["error"]["kind"]) == (2, "ConfigError")
        assert refused.body["error"]["message"] == line
    assert ran.call(command, "--team", "T01", "--channel", "C2").code == 0


def test_channel_that_nobody_has_written_in_is_known(ran: Workspace) -> None:
    ran.channels({"C1": "general", "C2": "random", "C3": "quiet"})
    assert ran.call("run", "--channel", "C3").code == 0


def test_team_of_a_table_is_known_once_it_was_read(workspace: Workspace) -> None:
    rows = [{"i": str(n), "t": "some words", "c": 1740960000, "w": f"W{n % 2}"} for n in range(4)]
    (workspace.root / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = '[[sources]]\nkind = "table"\nuri = "rows.json"\nformat = "json"\n[sources.columns]\n'
    table += 'id = "i"\ntext = "t"\ncreated_at = "c"\nteam_id = "w"\n'
    workspace.config.write_text(table + '[model]\nbackend = "hash"\n[spark]\nmaster = "local[2]"\n')
    assert workspace.run("--team", "W1").code == 0, "it was not known before"
    refused = workspace.run("--team", "W7")
    assert refused.code == 2 and refused.body["error"]["message"].endswith("known: W0, W1")


def test_search_tells_nobody_of_other_teams(ran: Workspace) -> None:
    for scope, line in (
        (["--team", "T02"], "--team: there is no team 'T02' in this index"),
        (["--team", "T01", "--channel", "C9"], "--channel: team 'T01' has no such channel in this index"),
    ):
        found = ran.call("search", "lockers", *scope)
        assert (found.code, found.body["error"]["message"]) == (2, line)


def test_purge_of_a_team_that_is_nowhere_says_so(ran: Workspace) -> None:
    refused = ran.call("purge", "--team", "T10")
    assert refused.code == 2 and "nothing was purged" in refused.body["error"]["message"]
    for _ in range(2):
        assert ran.call("purge", "--team", "T01").code == 0, "the second finds nothing, and that is as it should be"


@pytest.mark.parametrize("option", ["--before", "--channel", "--ids"])
@pytest.mark.parametrize("given", ["", " ", ","])
def test_an_empty_option_does_not_widen_a_purge_to_the_whole_team(
    workspace: Workspace, option: str, given: str
) -> None:
    """As where a script's variable was never set."""
    if given == "," and option == "--channel":
        pytest.skip("a channel's id may be anything")
    refused = workspace.call("purge", "--team", "T01", option, given)
    assert refused.code == 2 and refused.body["error"]["message"].startswith(f"{option}: ")


@pytest.mark.parametrize(
    ("dates", "named"),
    [
        (["--since", ""], "--since"),
        (["--until", ""], "--until"),
        (["--since", "2025-03-02", "--until", "2025-03-01"], "--until"),
        (["--since", "2025-03-02", "--until", "2025-03-02"], "--until"),
        (["--since", "0001-01-01T00:00:00+14:00"], "--since"),
    ],
)
def test_dates_that_say_nothing_are_refused(workspace: Workspace, dates: list[str], named: str) -> None:
    for command in ("run", "plan", "verify", "reindex"):
        refused = workspace.call(command, *dates)
        assert refused.code == 2 and refused.body["error"]["message"].startswith(f"{named}: ")


def test_no_command_shows_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["embedmill"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert "reconcile" in capsys.readouterr().err.lower()


def test_an_output_that_cannot_be_written_is_one_line_and_no_success(workspace: Workspace) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs.cli", "status", "--config", str(workspace.config)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr == "embedmill: standard output cannot be written: No space left on device\n"
