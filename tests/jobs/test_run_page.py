"""The page of a run: what it shows, what it does not, and that a browser has nothing to complain of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.bodies.run import Tokens
from jobs.run_details import FOLDER, RunDetails, ShardTime, StepTime, drop_details, keep_details, kept_details
from jobs.run_page.data import page_data
from tests.support.command_line import invoke
from tests.support.in_process import open_pipeline
from tests.support.workspace import TEAM, TEXTS, Workspace, message, named_in

pytestmark = pytest.mark.usefixtures("encoder_here")
CHROMIUM = shutil.which("chromium")


def page(space: Workspace, *arguments: str) -> tuple[str, str]:
    """The run and its page."""
    out = space.root / "page.html"
    told = space.call("report", *arguments, "--out", str(out))
    assert told.code == 0, told
    assert told.body["file"] == str(out) and out.stat().st_mode & 0o077 == 0
    return told.body["run_id"], out.read_text()


def test_a_page_shows_what_the_run_did_and_no_text_team_or_channel(ran: Workspace) -> None:
    first = ran.call("status").body["last_runs"][0]["run_id"]
    ran.day("general", [message(n, f"canary4711 number {n}") for n in range(3)])
    (ran.files / "canary4712.pdf").write_bytes(b"%PDF-1.7\nnothing")
    assert ran.run().code == 3
    run_id, text = page(ran)
    assert run_id != first and f"run {run_id}" in text and ">partial<" in text
    for heading in ("Timeline", "Throughput", "Length of texts", "Workers", "Written, by team and channel"):
        assert f"<h2>{heading}</h2>" in text, heading
    assert "<h2>Put into quarantine</h2>" in text and "The last 2 runs" in text
    for secret in ("canary", "C1", "general", *TEXTS):
        assert secret not in text, secret
    assert not named_in(text, TEAM)
    assert page(ran, first)[0] == first


def test_a_team_is_not_taken_for_an_hour_of_the_day() -> None:
    assert not named_in(f"run 20250303{TEAM}2342, from 2025-03-03{TEAM}:23:42Z", TEAM)
    assert named_in(f"<td>{TEAM} / C1</td>", TEAM, "C1", "general") == [TEAM, "C1"]


def test_a_page_asks_nothing_of_any_network(ran: Workspace) -> None:
    _, text = page(ran)
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", text) and "<script" not in text and "url(http" not in text
    assert "@import" not in text


def test_a_run_that_is_not_known_is_said_with_those_that_are(ran: Workspace) -> None:
    told = ran.call("report", "no-such-run")
    [last] = ran.call("status").body["last_runs"]
    assert told.code == 2 and f"no-such-run has told nothing here; the newest that have: {last['run_id']}" in told.err


def test_without_an_id_the_page_is_of_the_newest_run_and_not_of_what_came_after(ran: Workspace) -> None:
    [run] = ran.call("status").body["last_runs"]
    assert ran.verify().code == 0 and ran.call("gc").code == 0
    collected, verified, _ = ran.call("status").body["last_runs"]
    told = ran.call("report", "--out", str(ran.root / "page.html")).body
    assert (told["run_id"], told["command"]) == (run["run_id"], "run")
    told = ran.call("report", verified["run_id"], "--out", str(ran.root / "page.html")).body
    assert (told["run_id"], told["command"]) == (verified["run_id"], "verify"), "by its id any command has one"
    file = ran.root / "page.html"
    said = invoke(["report", "--out", str(file), "--config", str(ran.config)]).stdout
    assert said == f"run {run['run_id']}: {file}\n", "a person reads which it is"
    newest = f"{collected['run_id']} (gc), {verified['run_id']} (verify), {run['run_id']} (run)"
    assert ran.call("report", "other").err.endswith(f"the newest that have: {newest}\n")


def test_before_the_first_run_there_is_no_page(workspace: Workspace) -> None:
    assert workspace.call("report").err == "embedmill: RUN: nothing was run here yet; run `embedmill run` first\n"
    assert workspace.call("gc").code == 0
    told = workspace.call("report")
    assert told.code == 2 and re.search(r"first; the newest that have: \S+ \(gc\)$", told.err), told.err


def test_run_and_page_tell_one_speed_that_of_encoding_alone(ran: Workspace) -> None:
    ran.day("general", [message(n, f"of another length {n} " * n) for n in range(9)])
    said = invoke(["run", "--config", str(ran.config)]).stdout
    report = page_data(open_pipeline(ran.config)).report
    assert report.encode_seconds is not None and report.encode_seconds < report.seconds.embed
    speed = f"{report.tokens.embedded / report.encode_seconds:,.0f}"
    assert f"{report.tokens.embedded:,} tokens at {speed} tokens/s" in said
    _, text = page(ran)
    assert f"<div>tokens/s<b>{speed}</b></div>" in text
    before = report.model_copy(update={"encode_seconds": None})  # of an earlier release
    assert before.tokens_per_second == report.tokens.embedded / report.seconds.embed
    assert json.loads(before.to_json()).keys() == json.loads(report.to_json()).keys() - {"encode_seconds"}
    nothing = report.model_copy(update={"tokens": Tokens(embedded=0)})
    assert nothing.tokens_per_second is None


def test_a_run_without_details_has_a_page_too(ran: Workspace) -> None:
    shutil.rmtree(ran.root / "state" / FOLDER)
    _, text = page(ran)
    assert "Timeline" not in text and "Written, by team and channel" in text


def test_counts_are_of_this_run_and_the_largest_come_first(ran: Workspace) -> None:
    ran.day("random", [message(n, f"another {n}") for n in range(2)])
    ran.day("general", [message(n, f"something {n}") for n in range(4)])
    assert ran.run().code == 0
    data = page_data(open_pipeline(ran.config))
    assert list(data.written.values()) == [4, 2] and list(data.embedded.values()) == [6]
    assert all(re.fullmatch(r"[0-9a-f]{8} / [0-9a-f]{8}", name) for name in data.written)


def test_details_are_kept_for_the_newest_runs_and_put_together_over_processes(tmp_path: Path) -> None:
    step, shard = StepTime("embed", 1, 2), ShardTime(1, 2, 3, 4, "host 1", 0.5, 6)
    first = RunDetails([step], [shard])
    first.lengths[3] = 2
    for number in range(5):
        keep_details(tmp_path, f"run-{number}", first)
    second = RunDetails([StepTime("publish", 3, 4)], [])
    kept = kept_details(tmp_path, "run-4")
    assert kept == first
    second.add(kept)
    assert [one.step for one in second.steps] == ["embed", "publish"] and second.lengths == {3: 2}
    drop_details(tmp_path, {"run-3", "run-4"})
    assert sorted(os.listdir(tmp_path / FOLDER)) == ["run-3.json", "run-4.json"]
    (tmp_path / FOLDER / "run-4.json").write_text("{")
    assert kept_details(tmp_path, "run-4") is None is kept_details(tmp_path, "run-0")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: chromium)")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_opens_it_without_a_complaint(ran: Workspace, tmp_path: Path, width: int) -> None:
    _, text = page(ran)
    file = tmp_path / "page.html"
    measure = "document.title = [innerWidth, document.documentElement.scrollWidth].join(' ')"
    assert (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    )  # what it would ask for is a complaint
    text = text.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    file.write_text(text.replace("</body>", f"<script>{measure}</script></body>"))
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--enable-logging=stderr"]
    words += ["--dump-dom", f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()]
    assert CHROMIUM is not None
    done = subprocess.run([CHROMIUM, *words], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    inner, scrolls = (int(n) for n in re.findall(r"<title>(\d+) (\d+)</title>", done.stdout)[0])
    assert scrolls <= inner, "the page is not wider than the window"
