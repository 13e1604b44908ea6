"""The archive of Spark's classes: made by the first JVM on a machine, used by the next, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedding.errors import ResourceError
from jobs.jvm import ClassArchive, check_java

COUNT = """
import sys
from jobs.config import load_config
from jobs.engines import quiet_engines, start_spark
from pathlib import Path
quiet_engines()
scratch = Path(sys.argv[2])
spark = start_spark(load_config(Path(sys.argv[1])), scratch, scratch / "log", small=True, reads=True)
print(spark.range(10).count(), spark._jvm.java.lang.System.getProperty("java.vm.info"))
"""


def start(config: Path, scratch: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COUNT, str(config), str(scratch)], capture_output=True, text=True, timeout=180,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    file = tmp_path / "embedmill.toml"
    file.write_text('[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "T01"\n[spark]\nmaster = "local[1]"\n')
    return file


@pytest.mark.slow
def test_first_spark_leaves_its_classes_to_the_next(config: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = start(config, tmp_path / "first", cache)
    assert first.returncode == 0 and first.stdout.startswith("10 "), first.stderr
    [archive] = cache.glob("embedmill/*")
    assert archive.suffix == ".jsa" and not archive.name.startswith("."), "nothing half made is left"
    made = archive.stat().st_mtime_ns

    second = start(config, tmp_path / "second", cache)
    assert second.returncode == 0 and second.stdout.startswith("10 "), second.stderr
    assert archive.stat().st_mtime_ns == made
    assert "sharing" in second.stdout and "[cds]" not in first.stderr + second.stderr

    content = bytearray(archive.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"x" * 4096
    archive.chmod(0o600)
    archive.write_bytes(content)
    third = start(config, tmp_path / "third", cache)
    assert third.returncode == 0 and third.stdout.startswith("10 "), third.stderr


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
