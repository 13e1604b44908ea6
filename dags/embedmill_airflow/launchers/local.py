"""A job as a process on the task's own machine: its output goes to the task's log, and it ends with the task."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from embedmill_airflow.launchers import Job, JobLost, Outcome

GRACE_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


class Local:
    """Runs one job. ``command`` is the console script, by default the one beside this Python.

    ``secrets`` are set in the job's environment, and shown nowhere.
    """

    def __init__(self, command: str = "", secrets: Mapping[str, str] | None = None) -> None:
        self._secrets = dict(secrets or {})
        own = Path(sys.executable).with_name("embedmill")
        self._command = shlex.split(command) or [str(own) if own.exists() else "embedmill"]
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job, *, log: Any) -> Outcome:
        """Run a job to its end. Raises JobLost where it was killed."""
        # Its own group, so that its engines go with it; and the kernel ends it with this process, whatever ends that.
        process = self._process = subprocess.Popen(
            [*self._command, *job.arguments],
            env=self._environment(job),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        log.info("process %d", process.pid)
        assert process.stdout is not None and process.stderr is not None
        told: list[str] = []
        readers = [
            threading.Thread(target=_keep, args=(process.stdout, told), daemon=True),
            threading.Thread(target=_show, args=(process.stderr, log), daemon=True),
        ]
        for reader in readers:
            reader.start()
        code = process.wait()
        # First what is left of the group, where the job itself was killed: it holds the other ends of the pipes.
        _signal(process, signal.SIGKILL)
        for reader in readers:
            reader.join(GRACE_SECONDS)
        if code < 0:
            raise JobLost(f"process {process.pid} was ended by {signal.Signals(-code).name}")
        return Outcome(code, _object("".join(told)))

    def stop(self, job: Job) -> None:
        """End the job and everything that it started, by force after a grace."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        _signal(process, signal.SIGKILL)

    def _environment(self, job: Job) -> dict[str, str]:
        """This process's environment without what is Airflow's own, with the job's and the secrets."""
        seen = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
        return seen | {"EMBEDMILL_PROGRESS": "lines"} | self._secrets | dict(job.environment)


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """To the job's whole group. Of a job that ended by itself there is none."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep(stream: IO[str], told: list[str]) -> None:
    with stream:
        told.extend(stream)


def _show(stream: IO[str], log: Any) -> None:
    with stream:
        for line in stream:
            if line.strip():
                log.info("%s", line.rstrip())


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
