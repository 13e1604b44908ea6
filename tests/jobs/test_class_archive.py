"""The archive of Spark's classes: made by the first JVM on a machine, used by the next, and never in the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest

from embedding.errors import ResourceError
from jobs.engines.class_archive import ClassArchive, check_java
from tests.support.paths import ROOT


def plan(workspace: Path, cache: Path, spark_home: Path | None = None) -> int:
    """Plan with the command itself what nobody has read. Returns how many classes its Spark took from an archive."""
    shutil.rmtree(workspace, ignore_errors=True)
    (workspace / "files").mkdir(parents=True)
    (workspace / "files" / "a.md").write_text("# A file\n\nIts text.\n")
    config, loaded = workspace / "embedmill.toml", workspace / "loaded.log"
    config.write_text('[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "T01"\n[spark]\nmaster = "local[1]"\n')
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "plan", "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ
        | {"XDG_CACHE_HOME": str(cache), "JAVA_TOOL_OPTIONS": f"-Xlog:class+load:file={loaded}:none:filecount=0"}
        | ({"SPARK_HOME": str(spark_home)} if spark_home else {}),
    )
    assert done.returncode == 0, done.stderr
    assert not re.search("cds|Traceback|Error", done.stderr), done.stderr
    return loaded.read_text().count("shared objects file (top)")


@dataclass(frozen=True)
class Taken:
    """How many classes each command took from an archive, and the archives that were there after each."""

    classes: list[int]
    archives: list[dict[str, int]]  # inode by name


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """A command of each of two installations of Spark, and one more of each."""
    folder = tmp_path_factory.mktemp("archives")
    workspace, cache, other = folder / "workspace", folder / "cache", folder / "other"
    other.symlink_to(Path(pyspark.__file__).parent)
    found = Taken([], [])
    for spark_home in (None, other, None, other):
        found.classes.append(plan(workspace, cache, spark_home))
        found.archives.append({file.name: file.stat().st_ino for file in cache.glob("embedmill/*")})
    [first] = found.archives[0]
    archive = cache / "embedmill" / first
    content = bytearray(archive.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"x" * 4096
    archive.chmod(0o600)
    archive.write_bytes(content)
    found.classes.append(plan(workspace, cache))
    return found


@pytest.mark.slow
def test_first_command_leaves_its_classes_to_the_next(taken: Taken) -> None:
    [archive] = taken.archives[0]
    assert archive.endswith(".jsa") and not archive.startswith("."), "nothing half made is left"
    assert taken.classes[0] == 0 and taken.classes[2] > 5000
    assert taken.archives[2][archive] == taken.archives[0][archive], "it is not made again"


@pytest.mark.slow
def test_every_installation_has_an_archive_of_its_own(taken: Taken) -> None:
    """Java refuses one that was made of jars in another folder, or of jars installed anew, and says nothing."""
    assert taken.classes[:2] == [0, 0] and len(taken.archives[1]) == 2
    assert min(taken.classes[2:4]) > 5000 and taken.archives[3] == taken.archives[1]


@pytest.mark.slow
def test_a_damaged_archive_costs_the_command_nothing(taken: Taken) -> None:
    assert taken.classes[4] == 0, "the last command met a damaged one, took nothing from it, and ended well"


def test_archives_that_nothing_has_used_for_a_month_go(tmp_path: Path) -> None:
    for days in 29, 31:
        file = tmp_path / f"run-4.3.0-{days}-1.jsa"
        file.write_bytes(b"a")
        os.utime(file, (at := time.time() - days * 86_400, at))
    ClassArchive(tmp_path, check_java(), complete=True).options()
    assert [file.name for file in tmp_path.glob("*.jsa")] == ["run-4.3.0-29-1.jsa"]


def test_existing_archive_is_mapped_and_a_missing_one_made(tmp_path: Path) -> None:
    archive = ClassArchive(tmp_path, check_java(), complete=True)
    making = archive.options()
    assert f"-XX:ArchiveClassesAtExit={tmp_path}/.making-" in making and "SharedArchiveFile" not in making
    made = tmp_path / (making.rsplit(f".making-{os.getpid()}-", 1)[1] + "-3.jsa")
    made.write_bytes(b"abc")
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
    made = tmp_path / (making.rsplit(f".making-{os.getpid()}-", 1)[1] + "-3.jsa")
    made.write_bytes(b"abc")
    assert few.options().endswith(f"-XX:SharedArchiveFile={made}"), "what is there serves it too"


def test_cache_that_cannot_be_written_costs_the_archive_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    options = ClassArchive(tmp_path / "taken" / "cache", check_java(), complete=True).options()
    assert "ArchiveClassesAtExit" not in options and "SharedArchiveFile" not in options


def test_missing_java_is_one_line_with_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ResourceError, match="no Java found; install Java 17"):
        check_java()
