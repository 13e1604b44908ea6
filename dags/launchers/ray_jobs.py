"""A job on a running Ray cluster, through its Jobs API. Imports Ray when it is used, and no Airflow.

The job's id on the cluster is its name, so a later try finds what an earlier one began:

    running                  attach to it
    ended well, but unread   take its outcome: the task died between the job's end and its own
    failed or stopped        forget it and run again

A job that ended well is forgotten once its outcome was taken, so that clearing the task runs it again.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from launchers import Job, JobLost, Outcome
from launchers.output import MARK, MODULE, Shown, new_mark, outcome

_MARK = "embedmill_mark"  # of the job's metadata on the cluster


class RayJobs:
    """Runs jobs at ``address``, the address of a cluster's dashboard (http://…:8265).

    ``command`` starts `jobs.launched` on the cluster. ``secrets`` are passed in the job's runtime environment, which
    Ray shows to whoever reaches its dashboard; without them the cluster's own environment holds what is secret.
    A cluster that does not answer for ``patience_seconds`` has lost its job; ``stop`` waits for ``stop_seconds``.
    """

    def __init__(
        self,
        address: str,
        *,
        command: str = "",
        secrets: Mapping[str, str] | None = None,
        stop_seconds: float = 30.0,
        patience_seconds: float = 300.0,
        poll_seconds: float = 2.0,
    ) -> None:
        self._address = address
        self._command = shlex.split(command) or ["python", "-m", MODULE]
        self._secrets = dict(secrets or {})
        self._stop = stop_seconds
        self._patience = patience_seconds
        self._poll = poll_seconds

    def run(self, job: Job, *, log: Any) -> Outcome:
        """Run a job to its end, or attach to it. Raises JobLost where it was stopped, killed, or is gone."""
        client = self._client()
        mark, skip = self._begin(client, job, log)
        shown = Shown(log, mark, skip)
        info = asyncio.run(self._follow(client, job.name, shown))
        text = client.get_job_logs(job.name)
        shown.again()
        shown.add(text)
        shown.end()
        return self._end(client, job, info, outcome(text, mark))

    def stop(self, job: Job) -> None:
        """Stop the job on the cluster and wait for its end. One that has ended, or never began, stays as it is."""
        client = self._client()
        info = _info(client, job.name)
        if info is None or info.status.is_terminal():
            return
        client.stop_job(job.name)
        until = time.monotonic() + self._stop
        while info is not None and not info.status.is_terminal() and time.monotonic() < until:
            time.sleep(0.2)
            info = _info(client, job.name)

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self._address)

    def _begin(self, client: Any, job: Job, log: Any) -> tuple[str, int]:
        """The mark of the job that runs now, and how much of its log is an earlier try's."""
        found, skip = _info(client, job.name), 0
        if found is not None:
            mark = (found.metadata or {}).get(_MARK, "")
            if mark and found.status.value not in ("FAILED", "STOPPED"):
                log.info("attached to job %s, which is %s", job.name, found.status.value)
                return mark, 0
            skip = len(client.get_job_logs(job.name))  # Ray appends to the log of the same id
            client.delete_job(job.name)
        mark = new_mark()
        try:
            client.submit_job(
                entrypoint=shlex.join([*self._command, *job.arguments]),
                submission_id=job.name,
                runtime_env={"env_vars": self._environment(job, mark)},
                metadata={_MARK: mark},
            )
        except RuntimeError:
            # Another try was faster, or the answer was lost on its way.
            found = _info(client, job.name)
            if found is None or not (found.metadata or {}).get(_MARK):
                raise
            mark = found.metadata[_MARK]
        log.info("job %s at %s", job.name, self._address)
        return mark, skip

    def _environment(self, job: Job, mark: str) -> dict[str, str]:
        # `auto` is the cluster that the job is on: Ray gives it the address in RAY_ADDRESS.
        own = {"EMBEDMILL__RAY__ADDRESS": "auto", "EMBEDMILL_PROGRESS": "lines", MARK: mark}
        return own | self._secrets | dict(job.environment)

    async def _follow(self, client: Any, name: str, shown: Shown) -> Any:
        """Show the job's log until it has ended; returns what the cluster knows of it."""
        tail = asyncio.create_task(self._tail(client, name, shown))
        try:
            seen = time.monotonic()
            while True:
                try:
                    info = await asyncio.to_thread(_info, client, name)
                except Exception as error:  # the network's, or the server's while it starts anew
                    if time.monotonic() - seen > self._patience:
                        raise JobLost(f"{self._address} does not answer ({type(error).__name__})") from None
                else:
                    seen = time.monotonic()
                    if info is None:
                        raise JobLost(f"job {name} is gone from {self._address}")
                    if info.status.is_terminal():
                        return info
                await asyncio.sleep(self._poll)
        finally:
            tail.cancel()
            with suppress(asyncio.CancelledError):
                await tail

    async def _tail(self, client: Any, name: str, shown: Shown) -> None:
        while True:
            shown.again()
            with suppress(Exception):  # the connection broke; whether the job is there is asked elsewhere
                async for piece in client.tail_job_logs(name):
                    shown.add(piece)
            await asyncio.sleep(self._poll)

    def _end(self, client: Any, job: Job, info: Any, said: Outcome | None) -> Outcome:
        status = info.status.value
        if status == "SUCCEEDED":
            with suppress(RuntimeError):
                client.delete_job(job.name)
        if said is None or status == "STOPPED" or (status == "SUCCEEDED") != (said.code == 0):
            code = "" if info.driver_exit_code is None else f", exit {info.driver_exit_code}"
            raise JobLost(f"job {job.name} ended without its report ({status}{code}); it is one of `{MODULE}` alone")
        return said


def _info(client: Any, name: str) -> Any:
    """What the cluster knows of a job, None where it knows none of that name."""
    try:
        return client.get_job_info(name)
    except RuntimeError as error:
        if "status code 404" in str(error):
            return None
        raise
