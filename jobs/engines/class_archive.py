"""What starts Spark's JVM: the Java that it needs, and an archive of Spark's classes that halves its start.

A JVM reads and checks some twenty thousand classes before Spark has begun. The first one on a machine that reads
sources leaves them behind, parsed, in the user's cache folder when it ends; those after it map that file (class data
sharing, JEP 350). Java compares the archive with its own version and the jars, and works without it, silently, where
they differ: so each Java and each installation of Spark has one of its own.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import distribution, version
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import ResourceError
from jobs.engines.compat import jvm_process
from jobs.state.path_alias import plain

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MIN_JAVA = 17
_DUMP_SECONDS = 60.0  # it takes some ten
_DAY_SECONDS = 86_400
_UNUSED_SECONDS = 30 * _DAY_SECONDS
_MAKING = ".making-"


def check_java() -> str:
    """What Java says of its version. Raises ResourceError with the fix where there is none that Spark can run on."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    fix = f"install Java {MIN_JAVA} or newer (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
    if not java or not Path(java).exists():
        raise ResourceError(f"no Java found; {fix}")
    found = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)(?:\.(\d+))?', found.stderr)
    if match is None:
        raise ResourceError(f"{java} does not run; {fix}")
    major = int(match[2] or 0) if match[1] == "1" else int(match[1])
    if major < MIN_JAVA:
        raise ResourceError(f"Java {major} is too old for Spark; {fix}")
    return found.stderr


class ClassArchive:
    """The archive of one Java and one Spark in a cache folder, used where it is there and made where it is not.

    With ``complete`` False it is not made: a Spark that will not do all the work of a run loads fewer classes, and what
    it would leave takes half of what the archive saves from the runs after it. Its size is part of its name: a JVM that
    maps a file which was cut short is killed (SIGBUS, seen on Java 17).
    """

    def __init__(self, cache: Path, java: str, *, complete: bool) -> None:
        self._cache, self._complete = cache, complete
        self._name = f"run-{version('pyspark')}-{hashlib.sha256(f'{java} {_jars()}'.encode()).hexdigest()[:12]}"
        self._making: Path | None = None

    def options(self) -> str:
        """For the JVM's command line. Where the archive is missing, it is made when the JVM ends (see ``keep``)."""
        # Another make of Java does not know these; a quarrel about the archive is not the user's business.
        common = "-XX:+IgnoreUnrecognizedVMOptions -Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off"
        for file in self._cache.glob(f"{self._name}-*.jsa"):
            if file.name == self._named(file.stat().st_size):
                with suppress(OSError):
                    os.utime(file)  # in use
                return f"{common} -XX:+VerifySharedSpaces -XX:SharedArchiveFile={plain(self._cache) / file.name}"
            with suppress(OSError):
                file.unlink()
        if not self._complete:
            return common
        try:
            self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove(self._cache.glob(f"{_MAKING}*"), _DAY_SECONDS)  # of processes that were killed
            _remove(self._cache.glob("run-*.jsa"), _UNUSED_SECONDS)  # of installations that are gone
        except OSError:
            return common
        if not os.access(self._cache, os.W_OK):
            return common
        self._making = self._cache / f"{_MAKING}{os.getpid()}-{self._name}"
        return f"{common} -XX:ArchiveClassesAtExit={plain(self._cache) / self._making.name}"

    def keep(self, session: SparkSession) -> None:
        """At this process's end, end the JVM of ``session`` and wait for the archive, if it makes one."""
        jvm = jvm_process(session)
        if self._making is not None and jvm is not None:
            atexit.register(self._keep, session, jvm, self._making, os.getpid())

    def _keep(self, session: SparkSession, jvm: subprocess.Popen[bytes], making: Path, owner: int) -> None:
        if os.getpid() != owner:
            return
        if sys.stderr.isatty():
            print("embedmill: leaving Spark's classes to the next run: ten seconds, this once", file=sys.stderr)
        with suppress(Exception):
            session.stop()  # whose thread would tell, with a traceback, that the JVM has gone
        with suppress(OSError, subprocess.TimeoutExpired, KeyboardInterrupt):
            if jvm.stdin is not None:
                jvm.stdin.close()  # which is what ends it
            if jvm.wait(_DUMP_SECONDS) == 0:
                os.replace(making, self._cache / self._named(making.stat().st_size))
        jvm.kill()  # one that is late, or whose user will not wait (it does not heed interrupts): no archive this time
        jvm.wait()
        with suppress(OSError):
            making.unlink(missing_ok=True)

    def _named(self, size: int) -> str:
        return f"{self._name}-{size}.jsa"


def _jars() -> list[tuple[str, int, int]]:
    """What Java compares of the jars on its class path: their paths, sizes and times of change."""
    home = os.environ.get("SPARK_HOME") or str(distribution("pyspark").locate_file("pyspark"))
    folder = Path(home, "jars")
    return sorted((str(jar), (at := jar.stat()).st_size, at.st_mtime_ns) for jar in folder.glob("*.jar"))


def _remove(files: Iterable[Path], after: float) -> None:
    for file in files:
        if time.time() - file.stat().st_mtime > after:
            file.unlink(missing_ok=True)
