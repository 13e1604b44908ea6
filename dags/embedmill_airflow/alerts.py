"""What is told when a task has failed for good: which run and step, and the command to rerun by hand. Never a text."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import Any

from airflow.sdk import BaseHook, BaseNotifier
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

from embedmill_airflow.launchers import run_id

CONNECTION = "embedmill_alerts"


class FailureNotifier(BaseNotifier):
    """Writes the alert to the task's log, and posts it to a chat's webhook where there is a connection for one.

    The connection ``embedmill_alerts`` holds the webhook's whole address as its password, for it is a secret.
    """

    def notify(self, context: Any) -> None:
        """Tell of one failed task."""
        text = alert(context)
        self.log.error("%s", text)
        try:
            address = BaseHook.get_connection(CONNECTION).password
        except AirflowNotFoundException:
            return
        if address:
            import httpx

            try:
                httpx.post(address, json={"text": text}, timeout=10).raise_for_status()
            except httpx.HTTPError as error:  # its text holds the address
                self.log.error("the alert was not delivered: %s", type(error).__name__)


def alert(context: Any) -> str:
    """The alert of a failed task: DAG run, step, embedmill's run id, and the command by hand."""
    failed, run = context["ti"], context["dag_run"]
    lines = [f"{run.dag_id}: {failed.task_id} failed (try {failed.try_number}) in {run.run_id}"]
    lines.append(f"embedmill run id: {run_id(run.dag_id, run.run_id)}")
    job = getattr(context.get("task"), "job", None)
    if job is not None:
        with suppress(AirflowException):  # wrong params have no command
            lines.append(f"by hand: embedmill {shlex.join(job(context).arguments)}")
    return "\n".join(lines)
