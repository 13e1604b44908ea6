"""A clean Debian with the cookbook's resources in it, done in shell: converged twice, and booted with its own systemd.

The first converging installs a real release by ``docker/install/python.sh`` (the list ``spark``, which has no torch).
For the boot the link to the release is moved to this test's packages, so that a whole run goes through the units.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.docker.test_docker import DOCKER, copied
from tests.support.chef import Resource, evaluate, has_ruby, label, script
from tests.support.paths import ROOT

pytestmark = pytest.mark.long  # ten minutes, 3 GB, and packages of Debian and PyPI
PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter", "ruby")
SITE = Path(sysconfig.get_path("purelib"))
PROGRAMS_OF_PACKAGES = (
    ("embedmill", "jobs.cli.app", "script"),
    ("milvus-lite", "milvus_lite.cmdline", "main"),
    ("ray", "ray.scripts.scripts", "main"),
)
TOKEN = "t0k\"en $HOME `id` 100% \\n 'x'"


class Machine:
    """A root of Debian: commands in it by systemd-nspawn, and its systemd once it is booted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.binds: list[str] = []
        # Where packages come from.
        self.environment = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.process: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def bind(self, path: str | Path) -> None:
        """Show a file or folder of this machine at its own path."""
        self.binds.append(f"--bind-ro={path}")

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command in the root, which is not booted."""
        variables = [f"--setenv={name}={value}" for name, value in self.environment.items()]
        return subprocess.run(
            ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={self.root}", *self.binds]
            + variables
            + ["--", *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
        )

    def converge(self, resources: Sequence[Resource]) -> list[str]:
        """Do what Chef would; returns what changed."""
        (self.root / "converge.sh").write_text(script(resources))
        (self.root / "converge.sh").chmod(0o700)
        ran = self.run("/bin/bash", "/converge.sh")
        assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
        return re.findall(r"^changed: (.*?)\r?$", ran.stdout, re.M)

    def boot(self) -> None:
        self.process = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={self.root}", "--boot"]
            + self.binds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while "running" not in (state := self._state()) and "degraded" not in state:
            assert time.monotonic() < until and self.process.poll() is None, state
            time.sleep(0.5)

    def _state(self) -> str:
        """What systemd of the machine says of itself, once it is there."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.name() == "systemd" and child.status() != psutil.STATUS_ZOMBIE:
                self.leader = child.pid
                return self.inside("systemctl", "is-system-running").stdout
        return "not there"

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in the booted machine."""
        return subprocess.run(
            ["nsenter", f"--target={self.leader}", "--all", "--", *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def shown(self, unit: str, *keys: str) -> dict[str, str]:
        lines = self.inside("systemctl", "show", f"--property={','.join(keys)}", unit).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def log(self, unit: str) -> str:
        return (self.root / "var" / "log" / "embedmill" / f"{unit}.log").read_text()

    def end(self) -> None:
        if self.process is not None:
            self.inside("systemctl", "poweroff")
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def archive(folder: Path) -> Path:
    """A release's archive: what the images are built from."""
    source = folder / "embedmill-0.2.0"
    for name in sorted({name for image in ("spark", "ray") for name in copied(DOCKER / image / "Dockerfile")}):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / name, target)
    file = folder / "embedmill.tar.gz"
    subprocess.run(["tar", "--create", "--gzip", "--file", file, "--directory", folder, source.name], check=True)
    return file


def packages_of_this_machine(machine: Machine) -> None:
    """Let pip find in the root what it finds here: its settings, the folders that they name, and the authorities."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for path in re.findall(r"(?:file://|(?<=['\s]))(/[^\s'#]+)", told):
        if Path(path).is_dir() or path.endswith(".txt"):
            machine.bind(path.removesuffix("/simple"))  # an index's files lie beside its pages
    for settings in (Path("/etc/pip.conf"), Path("~/.config/pip/pip.conf").expanduser()):
        if settings.is_file():
            shutil.copy(settings, machine.root / "etc" / "pip.conf")
    authorities = Path(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"))
    if authorities.is_file():
        shutil.copy(authorities, machine.root / "authorities.crt")
        machine.environment["PIP_CERT"] = "/authorities.crt"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    missing = [name for name in PROGRAMS if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    if missing or os.geteuid() != 0 or not has_ruby():
        pytest.skip(f"needs root, and of Debian debootstrap, systemd-container and ruby; missing: {missing}")
    if re.match(r"/(root|home)/", f"{ROOT}/") or re.match(r"/(root|home)/", f"{SITE}/"):
        pytest.skip("units see no home folder, and so not these packages")
    root = Path("/var/tmp") / f"embedmill-chef-{os.getpid()}"
    made = Machine(root)
    try:
        packages = "--include=systemd,systemd-sysv,dbus,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", root], check=True, capture_output=True
        )
        yield made
    finally:
        made.end()
        shutil.rmtree(root, ignore_errors=True)


def node(machine: Machine, file: Path, **more: Any) -> list[Resource]:
    """A machine of the role embedmill_single, with a secret from a data bag."""
    sample = ROOT / "docs" / "sample"
    attributes = {
        "release": {"url": f"file://{file}", "checksum": hashlib.sha256(file.read_bytes()).hexdigest()},
        "install": {"list": "spark"},
        "secrets": {"names": {"EMBEDMILL__INDEX__TOKEN": True}},
        "config": {"sources": [{"kind": "slack_export", "uri": f"{sample}/fernwood", "team_id": "T01FERN"}]},
        **more,
    }
    bag = {"data_bag/embedmill/staging": {"EMBEDMILL__INDEX__TOKEN": TOKEN}}
    found: list[Resource] = evaluate("single", "staging", attributes, bag)["resources"]
    return found


def test_a_clean_debian_becomes_a_single_node_and_runs(machine: Machine, tmp_path: Path) -> None:
    file = archive(tmp_path)
    for path in (file, ROOT, SITE):
        machine.bind(path)
    packages_of_this_machine(machine)
    resources = node(machine, file)

    # Everything once, and nothing the second time.
    changed = machine.converge(resources)
    once = [label(r) for r in resources if r["type"] != "embedmill_unit" and r["action"] != ["nothing"]]
    assert set(once) - set(changed) <= {"apt_update[embedmill]"}
    assert machine.converge(resources) == []

    # The release that was installed, as its user.
    program = "/opt/embedmill/current/bin/embedmill"
    as_user = ["runuser", "--user", "embedmill", "--", program]
    version = machine.run(*as_user, "--version").stdout.strip()
    assert version == "embedmill 0.2.0"
    shown = machine.run(*as_user, "config", "--config", "/etc/embedmill/embedmill.toml").stdout
    assert "/var/lib/embedmill/state" in shown
    assert machine.run("runuser", "--user", "embedmill", "--", "cat", "/etc/embedmill/environment").returncode != 0
    print(f"\n{version}\n{shown}")

    # A configuration that embedmill refuses stays out, and the former stays in place.
    spoilt = node(machine, file, config={"sources": [{"kind": "files", "uri": "/nowhere", "team_id": "T1"}]})
    (machine.root / "converge.sh").write_text(script(spoilt))
    refused = machine.run("/bin/bash", "/converge.sh")
    assert refused.returncode != 0 and "no such path: /nowhere" in refused.stderr + refused.stdout
    assert "fernwood" in (machine.root / "etc/embedmill/embedmill.toml").read_text()

    boot_with_these_packages(machine)
    runs_under_its_units(machine)
    runs_on_engines_of_other_units(machine)


def boot_with_these_packages(machine: Machine) -> None:
    """Move the link to a release that has this test's packages, and boot."""
    here = "/opt/embedmill/releases/here"
    assert machine.run("/usr/bin/python3.11", "-m", "venv", "--without-pip", here).returncode == 0
    prefix = machine.root / here.lstrip("/")
    (prefix / "lib" / "python3.11" / "site-packages" / "here.pth").write_text(f"{ROOT}\n{SITE}\n")
    programs = {"spark-class": f'#!/bin/sh\nexec {SITE}/pyspark/bin/spark-class "$@"\n'}
    for name, module, function in PROGRAMS_OF_PACKAGES:
        call = f"from {module} import {function}\nraise SystemExit({function}())\n"
        programs[name] = f"#!/opt/embedmill/current/bin/python\n{call}"
    for name, text in programs.items():
        (prefix / "bin" / name).write_text(text)
        (prefix / "bin" / name).chmod(0o755)
    # As Debian's installer leaves it: the machine's own name is an address of no interface.
    (machine.root / "etc" / "hostname").write_text("node1\n")
    (machine.root / "etc" / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 node1\n")
    link = machine.root / "opt" / "embedmill" / "current"
    link.unlink()
    link.symlink_to("/opt/embedmill/releases/here")
    machine.boot()


def runs_under_its_units(machine: Machine) -> None:
    timers = machine.inside("systemctl", "list-timers", "--all", "--no-legend", "--plain").stdout
    assert all(f"embedmill-{name}.timer" in timers for name in ("run", "verify", "gc"))
    assert machine.shown("embedmill-milvus", "ActiveState")["ActiveState"] == "active"

    ran = machine.inside("systemctl", "start", "embedmill-run")
    log = machine.log("embedmill-run")
    print(log)
    assert ran.returncode == 0, log + ran.stderr
    assert re.search(r"^run \S+: ok, messages_staging__v1", log, re.M)
    verified = machine.inside("systemctl", "start", "embedmill-verify")
    assert verified.returncode == 0, machine.log("embedmill-verify")
    assert "agree" in machine.log("embedmill-verify")

    # What node-exporter's own user reads, and what no other user may.
    series = machine.inside("runuser", "-u", "nobody", "--", "cat", "/var/lib/prometheus/node-exporter/embedmill.prom")
    assert "embedmill_last_success_timestamp_seconds{" in series.stdout
    assert machine.inside("runuser", "-u", "nobody", "--", "ls", "/var/lib/embedmill").returncode != 0

    # The secret came through the file as it was in the bag, and into no log.
    pid = machine.inside(
        "systemd-run",
        "--pipe",
        "--wait",
        "--uid=embedmill",
        "-p",
        "EnvironmentFile=/etc/embedmill/environment",
        "/usr/bin/env",
        "-0",
    )
    variables = dict(entry.split("=", 1) for entry in pid.stdout.split("\0") if "=" in entry)
    assert variables["EMBEDMILL__INDEX__TOKEN"] == TOKEN
    logs = machine.inside("sh", "-c", "cat /var/log/embedmill/*; journalctl --no-pager").stdout
    assert TOKEN not in logs and "t0k" not in logs

    # 3 is no failure of a run, 4 is one of verify; a program that dies is started again.
    codes = {"embedmill-run": "3", "embedmill-verify": "3"}
    for unit, code in codes.items():
        folder = machine.root / "etc" / "systemd" / "system" / f"{unit}.service.d"
        folder.mkdir()
        (folder / "code.conf").write_text(f"[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit {code}'\n")
    machine.inside("systemctl", "daemon-reload")
    assert machine.inside("systemctl", "start", "embedmill-run").returncode == 0
    assert machine.inside("systemctl", "start", "embedmill-verify").returncode != 0
    before = machine.shown("embedmill-milvus", "MainPID")["MainPID"]
    assert machine.inside("systemctl", "kill", "--signal=KILL", "embedmill-milvus").returncode == 0
    until = time.monotonic() + 30
    while (now := machine.shown("embedmill-milvus", "MainPID", "ActiveState"))["MainPID"] in (before, "0"):
        assert time.monotonic() < until, now
        time.sleep(0.5)

    # An ask to end is answered in time, and is no failure.
    assert machine.inside("systemctl", "stop", "embedmill-milvus").returncode == 0
    stopped = machine.shown("embedmill-milvus", "ActiveState", "Result")
    assert stopped == {"ActiveState": "inactive", "Result": "success"}, json.dumps(stopped)


def runs_on_engines_of_other_units(machine: Machine) -> None:
    """The units of a head and of a worker on one machine: each has a ``/tmp`` of its own, and they meet all the same."""
    sample = ROOT / "docs" / "sample"
    sources = [("slack_export", "fernwood", "T01FERN"), ("slack_export", "birchline", "T02BIRCH")]
    unneeded = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "EMBEDMILL__STATE__HASH_KEY")
    attributes = {
        "release": {"url": "file:///there", "checksum": "0"},
        "head": "127.0.0.1",
        "ray": {"object_store_mb": 200},
        "secrets": {"names": dict.fromkeys(unneeded, False)},
        "config": {
            "sources": [{"kind": k, "uri": f"{sample}/{uri}", "team_id": team} for k, uri, team in sources],
            "spark": {"in_process_mb": 0},
        },
    }
    bag = {"data_bag/embedmill/staging": {"EMBEDMILL__INDEX__TOKEN": TOKEN, "RAY_AUTH_TOKEN": "ab" * 32}}
    head, worker = (evaluate(role, "staging", attributes, bag, "127.0.0.1")["resources"] for role in ("head", "worker"))
    wanted = {"embedmill.toml", "environment"}
    wanted |= {f"embedmill-{name}.service" for name in ("run", "ray", "spark-master")}
    files = [r for r in head if r["type"] == "template" and Path(r["name"]).name in wanted]
    files += [r for r in worker if r["name"].endswith("embedmill-spark-worker.service")]
    assert len(files) == 6
    for file in files:
        (machine.root / file["name"].lstrip("/")).write_text(file["content"])
    shutil.rmtree(machine.root / "etc" / "systemd" / "system" / "embedmill-run.service.d", ignore_errors=True)
    machine.inside("systemctl", "daemon-reload")
    engines = ["embedmill-milvus", "embedmill-ray", "embedmill-spark-master", "embedmill-spark-worker"]
    assert machine.inside("systemctl", "start", *engines).returncode == 0
    told = {"embedmill-ray": "Ray runtime started", "embedmill-spark-master": "Registering worker"}
    until = time.monotonic() + 90
    while not all(line in machine.log(unit) for unit, line in told.items()):
        assert time.monotonic() < until, "".join(map(machine.log, told))
        time.sleep(0.5)
    ran = machine.inside("systemctl", "start", "embedmill-run")
    log = machine.log("embedmill-run")
    print(log)
    assert ran.returncode == 0, log
    last = log[log.rindex("run 2") :]
    assert re.search(r"embedded +[1-9]\d* chunks", last)
    assert "Registered app embedmill" in machine.log("embedmill-spark-master")
    assert all(machine.shown(unit, "ActiveState")["ActiveState"] == "active" for unit in engines)
    assert machine.inside("systemctl", "stop", *engines).returncode == 0
    for unit in engines:
        assert machine.shown(unit, "Result")["Result"] == "success", machine.log(unit)
