"""A job on a running Ray cluster, through its Jobs API. Imports Ray when it is used, and no Airflow.

Each try's id on the cluster is the job's name and a random tail: Ray's watch over an ended job can fail a new one of
the same id. A later try finds by the name what an earlier one began:

    running                  attach to it
    ended well, but unread   take its outcome: the task died between the job's end and its own
    failed or stopped        begin a new one

A job that ended well is removed once its outcome was taken, so that clearing the task runs it again.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from embedmill_airflow.launchers import Job, JobLost, Outcome
from embedmill_airflow.launchers.outcome import MARK, MODULE, Shown, outcome


class RayJobs:
    """Runs jobs at ``address``, the address of a cluster's dashboard (http://…:8265).

    ``command`` starts ``jobs.cli.cluster_entrypoint`` on the cluster. ``secrets`` are passed in the job's runtime
    environment, which Ray shows to everybody who reaches its dashboard; without them the cluster's own environment
    holds what is secret.
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
        self._followed, self._stopping = "", False

    def run(self, job: Job, *, log: Any) -> Outcome:
        """Run a job to its end, or attach to it. Raises JobLost where it was stopped, killed, or is gone."""
        client = self._client()
        own, attached = self._begin(client, job, log)
        self._followed = own
        shown = Shown(log, own)
        info = asyncio.run(self._follow(client, own, shown))
        if attached and info.status.value == "STOPPED" and not self._stopping:
            # By the try that began it: Airflow had lost sight of it, and now told it that another has its place.
            shown.end()
            log.info("job %s was stopped by another try", own)
            return self.run(job, log=log)
        text = client.get_job_logs(own)
        shown.again()
        shown.add(text)
        shown.end()
        return self._end(client, own, info, outcome(text, own))

    def stop(self, job: Job) -> None:
        """Stop the job on the cluster and wait for its end. One that has ended, or never began, stays as it is.

        Of a job that is followed here it is the try that is followed: another may have begun the next one.
        """
        self._stopping, client = True, self._client()
        running = [one.submission_id for one in _tries(client, job) if not one.status.is_terminal()]
        running = [own for own in running if self._followed in ("", own)]
        for own in running:
            client.stop_job(own)
        until = time.monotonic() + self._stop
        while running and time.monotonic() < until:
            time.sleep(0.2)
            running = [own for own in running if (info := _info(client, own)) and not info.status.is_terminal()]

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self._address)

    def _begin(self, client: Any, job: Job, log: Any) -> tuple[str, bool]:
        """The id of the job's try that is to be followed, its outcome's mark too; and whether another had begun it."""
        last = _tries(client, job)[-1:]
        if last and last[0].status.value not in ("FAILED", "STOPPED"):
            log.info("attached to job %s, which is %s", last[0].submission_id, last[0].status.value)
            return str(last[0].submission_id), True
        own = f"{job.name}-{secrets.token_hex(4)}"
        client.submit_job(
            entrypoint=shlex.join([*self._command, *job.arguments]),
            submission_id=own,
            runtime_env={"env_vars": self._environment(job, own)},
        )
        log.info("job %s at %s", own, self._address)
        return own, False

    def _environment(self, job: Job, mark: str) -> dict[str, str]:
        # `auto` is the cluster that the job is on: Ray gives it the address in RAY_ADDRESS.
        given = {"EMBEDMILL__RAY__ADDRESS": "auto", "EMBEDMILL_PROGRESS": "lines", MARK: mark}
        return given | self._secrets | dict(job.environment)

    async def _follow(self, client: Any, own: str, shown: Shown) -> Any:
        """Show the job's log until it has ended; returns what the cluster knows of it."""
        tail = asyncio.create_task(self._tail(client, own, shown))
        try:
            seen = time.monotonic()
            while True:
                try:
                    info = await asyncio.to_thread(_info, client, own)
                except Exception as error:  # the network's, or the server's while it starts anew
                    if time.monotonic() - seen > self._patience:
                        raise JobLost(f"{self._address} does not answer ({type(error).__name__})") from None
                else:
                    seen = time.monotonic()
                    if info is None:
                        raise JobLost(f"job {own} is gone from {self._address}")
                    if info.status.is_terminal():
                        return info
                await asyncio.sleep(self._poll)
        finally:
            tail.cancel()
            with suppress(asyncio.CancelledError):
                await tail

    async def _tail(self, client: Any, own: str, shown: Shown) -> None:
        while True:
            shown.again()
            with suppress(Exception):  # the connection broke; whether the job is there is asked elsewhere
                async for piece in client.tail_job_logs(own):
                    shown.add(piece)
            await asyncio.sleep(self._poll)

    def _end(self, client: Any, own: str, info: Any, said: Outcome | None) -> Outcome:
        status = info.status.value
        if status == "SUCCEEDED":
            client.delete_job(own)
        if said is None or status == "STOPPED" or (status == "SUCCEEDED") != (said.code == 0):
            code = "" if info.driver_exit_code is None else f", exit {info.driver_exit_code}"
            raise JobLost(f"job {own} ended without its report ({status}{code}); it is one of `{MODULE}` alone")
        return said


def _tries(client: Any, job: Job) -> list[Any]:
    """The job's tries that the cluster knows, a running one last, else the newest."""
    found = [one for one in client.list_jobs() if (one.submission_id or "").startswith(f"{job.name}-")]
    return sorted(found, key=lambda one: (not one.status.is_terminal(), one.start_time or 0))


def _info(client: Any, own: str) -> Any:
    """What the cluster knows of a try, None where it knows none of that id."""
    try:
        return client.get_job_info(own)
    except RuntimeError as error:
        if "status code 404" in str(error):
            return None
        raise
