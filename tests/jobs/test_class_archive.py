"""The archive of Spark's classes: made by the first JVM on a machine, used by the next, and never in the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedding.errors import ResourceError
from jobs.engines.class_archive import ClassArchive, check_java
from tests.support.paths import HARD, ONE_CORE, ROOT

RUN_ALL = """
import json, sys
from pathlib import Path
from tests.support.paths import BY_SPARK
from tests.support.workspace import Workspace
space = Workspace(Path(sys.argv[1]))
rows = space.root / "my rows"
rows.mkdir()
(rows / "a day.json").write_text('{"id": "1", "text": "A row about herons", "at": "2025-03-03"}\\n')
sources = '[[sources]]\\nkind = "table"\\nuri = "my rows"\\nformat = "json"\\nteam_id = "T01"\\n'
sources += '[sources.columns]\\nid = "id"\\ntext = "text"\\ncreated_at = "at"\\n'
text = space.config.read_text().replace("[model]", sources + "[model]")
space.config.write_text(text.replace("[spark]\\n", BY_SPARK))
first, again = space.run(), space.run()
space.config.write_text(text)
(space.files / "notes.txt").unlink()
third = space.run()
found = space.call("search", "lockers", "--team", "T01", "--k", "1")
print(json.dumps([first.code, first.body["index_rows"]["after"], again.body["chunks"]["unchanged"],
    third.body["chunks"]["deleted"], len(found.body["hits"]), space.verify().code]))
"""
# A command's Spark, and no more of it: started as one that reads sources, for one job.
START = """
import sys
from pathlib import Path
from jobs.config import load_config
from jobs.engines.spark import start_spark
config, scratch = map(Path, sys.argv[1:])
spark = start_spark(load_config(config), scratch, scratch / "log", reads=True)
assert spark.range(3).count() == 3
"""


class Machine:
    """Commands that share a cache folder of a hard name, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.home, self._folder = folder / "machine" / HARD, folder
        self.cache = self.home / "cache"
        self.home.mkdir(parents=True)
        (folder / "files").mkdir()
        self._config = folder / "embedmill.toml"
        self._config.write_text(
            '[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "T01"\n[spark]\nmaster = "local[1]"\nin_process_mb = 0\n'
        )

    def run_all(self) -> tuple[int, str]:
        """Most of what there is to do, over a workspace of a hard name, in a C locale; returns what it printed too."""
        return self._run(["-c", RUN_ALL, str(self.home / "ws")], LC_ALL="C", **ONE_CORE)

    def start(self) -> int:
        """Start a command's Spark, and end."""
        return self._run(["-c", START, str(self._config), str(self._folder / "scratch")])[0]

    def _run(self, arguments: list[str], **environment: str) -> tuple[int, str]:
        """Returns how many classes the process' Spark took from an archive, and its output."""
        loaded = self._folder / "loaded.log"
        # As users have it, but for C2: what it does beside the work costs as much as the work, and changes no class.
        java = os.environ | {"SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1"}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env=java
            | {
                "XDG_CACHE_HOME": str(self.cache),
                "JAVA_TOOL_OPTIONS": f"-Xlog:class+load:file={loaded}:none:filecount=0",
            }
            | environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert not re.search("cds|Traceback|Error", done.stderr), done.stderr
        return loaded.read_text().count("shared objects file (top)"), done.stdout

    def archives(self) -> dict[str, int]:
        """Inodes by name."""
        return {file.name: file.stat().st_ino for file in self.cache.glob("embedmill/*")}


@dataclass(frozen=True)
class Taken:
    """How many classes each process took from an archive, and the archives that were there after each."""

    machine: Machine
    printed: str  # by the first
    classes: list[int]
    archives: list[dict[str, int]]


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """A process that finds no archive, one that finds that of the first, and one that meets a damaged one."""
    machine = Machine(tmp_path_factory.mktemp("archives"))
    classes, printed = machine.run_all()
    found = Taken(machine, printed, [classes], [machine.archives()])
    found.classes.append(machine.start())
    found.archives.append(machine.archives())
    [first] = found.archives[0]
    archive = machine.cache / "embedmill" / first
    content = bytearray(archive.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"x" * 4096
    archive.chmod(0o600)
    archive.write_bytes(content)
    found.classes.append(machine.start())
    return found


@pytest.mark.slow
def test_everything_lies_below_a_hard_path(taken: Taken) -> None:
    """By itself each of these characters has stopped an engine."""
    home = taken.machine.home
    assert json.loads(taken.printed.splitlines()[-1]) == [0, 9, 9, 1, 1, 0]
    assert {p.name for p in (home / "ws").iterdir()} == {"export", "files", "my rows", "embedmill.toml", "state"}
    assert {p.name for p in home.parent.iterdir()} == {HARD}, "nothing was written beside it"
    assert [name for name in taken.archives[0] if name.startswith("run-")], "Java leaves its classes there too"


@pytest.mark.slow
def test_first_command_leaves_its_classes_to_the_next(taken: Taken) -> None:
    [archive] = taken.archives[0]
    assert archive.endswith(".jsa") and not archive.startswith("."), "nothing half made is left"
    assert taken.classes[0] == 0 and taken.classes[1] > 5000
    assert taken.archives[1] == taken.archives[0], "it is not made again"


@pytest.mark.slow
def test_a_damaged_archive_costs_the_command_nothing(taken: Taken) -> None:
    assert taken.classes[2] == 0, "the last command met a damaged one, took nothing from it, and ended well"


def test_archives_that_nothing_has_used_for_a_month_go(tmp_path: Path) -> None:
    for days in 29, 31:
        file = tmp_path / f"run-4.3.0-{days}-1.jsa"
        file.write_bytes(b"a")
        os.utime(file, (at := time.time() - days * 86_400, at))
    ClassArchive(tmp_path, check_java(), complete=True).options()
    assert [file.name for file in tmp_path.glob("*.jsa")] == ["run-4.3.0-29-1.jsa"]


def left_by(making: str, cache: Path) -> Path:
    """The archive that a JVM started with these options leaves, of three bytes."""
    made = cache / (making.rsplit(f".making-{os.getpid()}-", 1)[1] + "-3.jsa")
    made.write_bytes(b"abc")
    return made


def test_every_installation_has_an_archive_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java refuses one that was made of jars in another folder, or of jars installed anew, and says nothing."""
    cache = tmp_path / "cache"
    for folder in "one", "another":
        (tmp_path / folder / "jars").mkdir(parents=True)
        (jar := tmp_path / folder / "jars" / "spark.jar").write_bytes(b"classes")
        os.utime(jar, (1_740_960_000, 1_740_960_000))

    def options(folder: str) -> str:
        """Of a command whose Spark lies there; by itself it finds that of PySpark."""
        if folder:
            monkeypatch.setenv("SPARK_HOME", str(tmp_path / folder))
        else:
            monkeypatch.delenv("SPARK_HOME", raising=False)
        return ClassArchive(cache, check_java(), complete=True).options()

    made = {}
    for folder in "", "one", "another":
        making = options(folder)
        assert "ArchiveClassesAtExit" in making and "SharedArchiveFile" not in making
        made[folder] = left_by(making, cache)
    assert len(set(made.values())) == 3
    for folder, archive in made.items():
        assert options(folder).endswith(f"-XX:SharedArchiveFile={archive}"), "each has its own"

    os.utime(tmp_path / "one" / "jars" / "spark.jar")  # installed anew
    assert left_by(options("one"), cache) not in made.values()


def test_existing_archive_is_mapped_and_a_missing_one_made(tmp_path: Path) -> None:
    archive = ClassArchive(tmp_path, check_java(), complete=True)
    making = archive.options()
    assert f"-XX:ArchiveClassesAtExit={tmp_path}/.making-" in making and "SharedArchiveFile" not in making
    made = left_by(making, tmp_path)
    assert archive.options().endswith(f"-XX:SharedArchiveFile={made}")
    assert "SharedArchiveFile" not in ClassArchive(tmp_path, "another Java", complete=True).options()

    # Cut short it would kill the JVM that maps it.
    made.write_bytes(b"ab")
    assert "ArchiveClassesAtExit" in archive.options() and not made.exists()


def test_only_a_spark_that_does_a_whole_run_leaves_its_classes(tmp_path: Path) -> None:
    """One that only counted rows would leave so few that every run after it took four seconds more."""
    few = ClassArchive(tmp_path, check_java(), complete=False)
    assert "ArchiveClassesAtExit" not in few.options() and not list(tmp_path.iterdir())
    making = ClassArchive(tmp_path, check_java(), complete=True).options()
    made = left_by(making, tmp_path)
    assert few.options().endswith(f"-XX:SharedArchiveFile={made}"), "what is there serves it too"


def test_cache_that_cannot_be_written_costs_the_archive_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    options = ClassArchive(tmp_path / "taken" / "cache", check_java(), complete=True).options()
    assert "ArchiveClassesAtExit" not in options and "SharedArchiveFile" not in options


def test_missing_java_is_one_line_with_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ResourceError, match="no Java found; install Java 17"):
        check_java()
