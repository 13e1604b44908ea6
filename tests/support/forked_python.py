"""A Python that has imported what is slow to import: scripts run in forks of it, each as in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# Reads a script a line, forks, and says the exit code once that has ended. Argument: what is imported first.
SERVER = """
import json, os, sys, threading, traceback
exec(sys.argv[1])
assert threading.active_count() == 1, "a fork has one thread alone"
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chdir(asked["folder"])
            os.environ.update(asked["environment"])
            for stream, file in ((1, asked["stdout"]), (2, asked["stderr"])):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            exec(compile(asked["script"], "<script>", "exec"), {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class ForkedPython:
    """``imported`` are the statements of import, run once with ``environment``, which forks inherit."""

    def __init__(self, imported: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self._said() == "ready"

    def run(self, script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a script to its end in a folder, with ``environment`` added."""
        with tempfile.TemporaryDirectory() as streams:
            out, err = Path(streams, "out"), Path(streams, "err")
            asked = {"script": script, "folder": str(folder), "environment": dict(environment)}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asked | {"stdout": str(out), "stderr": str(err)}) + "\n")
            self._process.stdin.flush()
            code = int(self._said())
            return subprocess.CompletedProcess(script, code, out.read_text(), err.read_text())

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=10)
