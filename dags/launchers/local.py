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
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

if TYPE_CHECKING:
    from launchers import Job

import contextlib

from launchers import Outcome

# Secrets that Airflow keeps: the password of these connections, where there are such, under embedmill's variables.
SECRETS = {
    "embedmill_index": "EMBEDMILL__INDEX__TOKEN",
    "embedmill_state": "EMBEDMILL__STATE__HASH_KEY",
    "embedmill_model": "EMBEDMILL_HTTP_API_KEY",
}
GRACE_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


class Local:
    """Runs jobs one at a time. ``command`` is the console script, by default the one beside this Python."""

    def __init__(self, command: str = "") -> None:
        own = Path(sys.executable).with_name("embedmill")
        self._command = shlex.split(command) or [str(own) if own.exists() else "embedmill"]
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job, *, log: Any) -> Outcome:
        """Run a job to its end. Raises AirflowException where it was killed."""
        # Its own group, so that its engines go with it; and the kernel ends it with this process, whatever ends that.
        process = self._process = subprocess.Popen(
            [*self._command, *job.arguments], env=_environment(job), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="backslashreplace", start_new_session=True,
            preexec_fn=_end_with_parent,
        )  # fmt: skip
        log.info("process %d", process.pid)
        assert process.stdout is not None and process.stderr is not None
        told: list[str] = []
        reader = threading.Thread(target=_collect, args=(process.stdout, told), daemon=True)
        reader.start()
        for line in process.stderr:
            if line.strip():
                log.info("%s", line.rstrip())
        code = process.wait()
        reader.join(GRACE_SECONDS)
        self._end_group(process)
        if code < 0:
            raise AirflowException(f"process {process.pid} was ended by {signal.Signals(-code).name}")
        return Outcome(code, _object("".join(told)))

    def stop(self, job: Job) -> None:
        """End the job and everything that it started, by force after a grace."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        self._end_group(process)

    @staticmethod
    def _end_group(process: subprocess.Popen[str]) -> None:
        """What is left of the group: nothing, unless the job itself was killed."""
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _collect(stream: IO[str], told: list[str]) -> None:
    told.extend(stream)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _environment(job: Job) -> dict[str, str]:
    """This process's environment without what is Airflow's own, with the job's and the secrets that Airflow keeps."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    for connection, name in SECRETS.items():
        try:
            secret = BaseHook.get_connection(connection).password
        except AirflowNotFoundException:
            continue
        if secret:
            environment[name] = secret
    return environment | {"EMBEDMILL_PROGRESS": "lines"} | dict(job.environment)
