"""The cookbook's units and rotation of logs, read by systemd's own tools and by logrotate."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from jobs.cli.app import app
from tests.support.chef import NO_RUBY, Resource, has_ruby, ruby
from tests.support.chef_nodes import (
    evaluated,
    installation,
    one,
    setting,
    units,
)

pytestmark = pytest.mark.skipif(not has_ruby(), reason=NO_RUBY)


def test_each_role_has_its_services(nodes: dict[tuple[str, str], list[Resource]]) -> None:
    timers = {"embedmill-run.timer", "embedmill-verify.timer", "embedmill-gc.timer"}
    expected = {
        "single": timers | {"embedmill-milvus", "embedmill-serve"},
        "head": timers | {"embedmill-ray", "embedmill-spark-master", "embedmill-serve"},
        "worker": {"embedmill-ray", "embedmill-spark-worker"},
    }
    for (role, _), found in nodes.items():
        services = [r for r in found if r["type"] == "service"]
        assert {r["name"] for r in services} == expected[role]
        assert all(r["action"] == ["enable", "start"] for r in services)


def test_services_start_again_with_another_release_configuration_or_secret(resources: list[Resource]) -> None:
    for resource in resources:
        if resource["type"] != "embedmill_unit" or resource["calendar"]:
            continue
        after = {target for action, target, _ in resource["subscribes"] if action == "restart"}
        assert {"link[/opt/embedmill/current]", f"file[{installation(resources)}/complete]"} <= after
        assert ("template[/etc/embedmill/environment]" in after) == resource["secrets"]
        if resource["name"] == "embedmill-serve":
            assert "template[/etc/embedmill/embedmill.toml]" in after


def test_units_are_locked_in(resources: list[Resource]) -> None:
    for name, text in units(resources).items():
        if not name.endswith(".service"):
            continue
        for key, value in {
            "User": "embedmill",
            "NoNewPrivileges": "yes",
            "ProtectSystem": "strict",
            "PrivateTmp": "yes",
            "KillSignal": "SIGTERM",
            "KillMode": "mixed",
            "CapabilityBoundingSet": "",
        }.items():
            assert setting(text, key) == [value], f"{name}: {key}"
        assert re.fullmatch(r"\d+G", setting(text, "MemoryMax")[0])
        assert not [
            path for path in setting(text, "ReadWritePaths")[0].split() if path in ("/", "/opt", "/etc", "/var")
        ]


def test_runs_with_records_in_quarantine_are_no_failures_and_differences_are() -> None:
    found = units(evaluated("single"))
    quarantined, stopped = 3, 143
    assert setting(found["embedmill-run.service"], "SuccessExitStatus") == [f"{quarantined} {stopped}"]
    assert setting(found["embedmill-verify.service"], "SuccessExitStatus") == [f"{stopped}"]  # and not 4


def test_a_service_has_longer_to_stop_than_it_takes_to_drain() -> None:
    serve = units(evaluated("single", serve={"drain_seconds": 60}))["embedmill-serve.service"]
    assert int(setting(serve, "TimeoutStopSec")[0]) > 60
    assert setting(serve, "Restart") == ["on-failure"] and setting(serve, "Type") == ["exec"]


def test_commands_and_options_of_units_are_embedmills() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    seen = set()
    for text in units(evaluated("head")).values():
        for line in setting(text, "ExecStart"):
            program, *words = shlex.split(line)
            if Path(program).name != "embedmill" or words[0] == "serve" and "serve" not in commands:
                continue
            known = {option for parameter in commands[words[0]].params for option in parameter.opts}
            assert not {word for word in words if word.startswith("--")} - known
            seen.add(words[0])
    assert {"run", "verify", "gc"} <= seen


def test_a_job_without_a_calendar_is_stopped() -> None:
    found = evaluated("single", jobs={"gc": {"calendar": ""}})
    assert one(found, "service[embedmill-gc.timer]")["action"] == ["stop", "disable"]
    assert "embedmill-gc.service" not in units(found) and "embedmill-run.service" in units(found)


def test_devices_of_a_gpu_can_be_opened() -> None:
    text = units(evaluated("worker", units={"gpu": True}))["embedmill-ray.service"]
    assert not setting(text, "PrivateDevices") and not setting(text, "ProtectClock")  # which closes all devices too


@pytest.mark.parametrize("words", [["/bin/x", 'a b"c\\', "100%", "$HOME ${X}", "ü=1,2", ""]])
def test_words_of_a_command_stay_what_they_are(words: list[str]) -> None:
    """By systemd's rules: words in quotes, ``%%`` and ``$$`` for the characters."""
    line = ruby("EmbedmillCookbook::Units.command(given)", words)
    assert [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)] == words


def installed(found: list[Resource], folder: Path) -> list[Path]:
    """Units with programs that exist here, in a folder."""
    programs = folder / "bin"
    programs.mkdir()
    files = []
    for name, text in units(found).items():
        for line in setting(text, "ExecStart"):
            (programs / Path(line.split()[0]).name).unlink(missing_ok=True)
            (programs / Path(line.split()[0]).name).symlink_to("/bin/true")
        files.append(folder / name)
        files[-1].write_text(text.replace("/opt/embedmill/current/bin/", f"{programs}/"))
    return files


def systemd_analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    return subprocess.run([program, *words], capture_output=True, text=True)


def test_systemd_reads_the_units_without_a_complaint(resources: list[Resource], tmp_path: Path) -> None:
    files = installed(resources, tmp_path)
    ran = systemd_analyze("verify", "--man=no", *files)
    assert (ran.returncode, ran.stderr) == (0, "")
    wrong = tmp_path / "embedmill-wrong.service"
    wrong.write_text(next(f for f in files if f.suffix == ".service").read_text() + "[Service]\nMemmoryMax=1G\n")
    assert "MemmoryMax" in systemd_analyze("verify", "--man=no", wrong).stderr


def test_systemd_rates_the_exposure_of_units_as_small(resources: list[Resource], tmp_path: Path) -> None:
    for file in installed(resources, tmp_path):
        if file.suffix == ".service":
            ran = systemd_analyze("security", "--offline=yes", "--threshold=30", file)
            assert ran.returncode == 0, f"{file.name}: {ran.stdout[-300:]}"


def test_calendars_are_times_that_systemd_knows(resources: list[Resource]) -> None:
    for name, text in units(resources).items():
        for calendar in setting(text, "OnCalendar"):
            ran = systemd_analyze("calendar", calendar)
            assert ran.returncode == 0, f"{name}: {ran.stderr}"


# -- logs --------------------------------------------------------------------------------------------------------------


def test_a_log_that_is_open_is_rotated(tmp_path: Path) -> None:
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
    if logrotate is None:
        pytest.skip("no logrotate here; Debian: apt-get install logrotate")
    logs = tmp_path / "log"
    logs.mkdir(mode=0o750)
    text = one(evaluated("single"), "template[/etc/logrotate.d/embedmill]")["content"]
    (tmp_path / "embedmill.conf").write_text(text.replace("/var/log/embedmill", str(logs)))
    (tmp_path / "embedmill.conf").chmod(0o644)
    check = subprocess.run([logrotate, "--debug", tmp_path / "embedmill.conf"], capture_output=True, text=True)
    assert check.returncode == 0 and "error" not in check.stderr.lower(), check.stderr
    with (logs / "embedmill-serve.log").open("a") as log:
        log.write("before\n")
        log.flush()
        subprocess.run([logrotate, "--force", "--state", tmp_path / "state", tmp_path / "embedmill.conf"], check=True)
        log.write("after\n")
    assert (logs / "embedmill-serve.log").read_text() == "after\n"
    assert [file.read_text() for file in logs.glob("embedmill-serve.log-*")] == ["before\n"]
