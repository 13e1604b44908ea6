"""What the DAGs share: the operator that launches one embedmill command, and the chain of a run's steps.

Reads from the environment of the Airflow processes: EMBEDMILL_LAUNCHER, EMBEDMILL_CONFIG (the same variable as the
command line's), EMBEDMILL_RETRY_SECONDS, and what each launcher takes (docs/airflow.md).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperator, BaseOperatorLink, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from embedmill_airflow.alerts import FailureNotifier
from embedmill_airflow.launchers import Job, Outcome, run_id
from embedmill_airflow.launchers.choose import launcher
from embedmill_airflow.params import Arguments
from embedmill_airflow.tracing import trace_parent

# One writer on the live index, and one build beside it; the lease in the state stands below both.
WRITERS, BUILDERS = "embedmill", "embedmill_build"
# Who goes first where several wait for a slot: what a person waits for, then the nightly run, then the backfill. Later
# steps go before earlier ones of the same kind, so that a run that has begun ends before the next begins.
PURGE, REINDEX, NIGHTLY, BACKFILL = 400, 300, 200, 100

DEFAULTS: dict[str, Any] = {
    "owner": "ml-infrastructure",
    "retries": 2,
    "retry_delay": dt.timedelta(seconds=float(os.environ.get("EMBEDMILL_RETRY_SECONDS", "60"))),
    "execution_timeout": dt.timedelta(hours=12),
    "weight_rule": "absolute",
    "pool": WRITERS,
    "on_failure_callback": [FailureNotifier()],
}
WAIT_SECONDS = 6 * 3600  # for the lease; less than the timeout of a task


class RunPage(BaseOperatorLink):
    """The button that opens a run's page: the file that `telemetry.pages` keeps, below EMBEDMILL_PAGES_URL."""

    name = "Run page"
    xcom_key = "run_page"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address, of a run that has told its id; else empty, which Airflow shows as no link."""
        base = os.environ.get("EMBEDMILL_PAGES_URL", "")
        return f"{base.rstrip('/')}/{quote(operator.embedmill_run)}.html" if base and operator.embedmill_run else ""


class EmbedmillOperator(BaseOperator):
    """Runs one embedmill command as a job, and returns the JSON object that it printed.

    ``command`` is its first words, ``arguments`` computes the rest from the task's context. The object, which holds
    counts and ids and never a text, is also the XCom "report", even where the command failed. ``writes``: the command
    takes the lease, and waits for it. ``reasons`` says what an exit code means, beside what the command says.
    """

    operator_extra_links = (RunPage(),)

    def __init__(  # noqa: PLR0913  (each a keyword)
        self,
        *,
        command: Sequence[str],
        arguments: Arguments | None = None,
        engine: str,
        writes: bool = True,
        reasons: Mapping[int, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = tuple(command)
        self.arguments = arguments
        self.engine = engine
        self.writes = writes
        self.reasons = _REASONS | dict(reasons or {})
        self.embedmill_run = ""  # embedmill's id of what this task ran
        self._running: tuple[Any, Job] | None = None

    def job(self, context: Mapping[str, Any]) -> Job:
        """The job of this task in this DAG run: the same for every try, so that a retry finds it."""
        run = run_id(context["dag_run"].dag_id, context["dag_run"].run_id)
        words = [*self.command, *(["--run-id", run] if self.command[0] == "step" else [])]
        words += [*(self.arguments(context) if self.arguments else ()), "--json"]
        words += ["--wait", str(WAIT_SECONDS)] if self.writes else []
        digest = hashlib.sha256(f"{run}/{self.task_id}".encode()).hexdigest()[:12]
        name = re.sub(r"[^a-z0-9]+", "-", f"embedmill-{self.task_id.lower()}")[:34]
        config = os.environ.get("EMBEDMILL_CONFIG")
        environment = {"EMBEDMILL_CONFIG": config} if config else {}
        return Job(f"{name}-{digest}", tuple(words), self.engine, environment | trace_parent())

    def execute(self, context: Any) -> dict[str, Any]:
        """Launch, or attach to what an earlier try launched; raise where the command did not do its work."""
        start, job = self._running = launcher(), self.job(context)
        self.log.info("job %s: embedmill %s", job.name, shlex.join(job.arguments))
        try:
            if hasattr(start, "begin"):
                seconds = self.execution_timeout.total_seconds() if self.execution_timeout else None
                trigger = start.begin(job, log=self.log, seconds=seconds)
            else:
                trigger, outcome = None, start.run(job, log=self.log)
        except BaseException:  # a task that fails takes its job with it, whatever it failed of
            with suppress(Exception):  # the first error is the one to be told
                self.on_kill()
            raise
        if trigger is not None:
            self.defer(trigger=trigger, method_name="resume")
        return self._conclude(context, outcome)

    def resume(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """Where the task goes on when the trigger has fired: the job has ended, or must."""
        start, job = self._running = launcher(), self.job(context)
        return self._conclude(context, start.end(job, event, log=self.log))

    def on_kill(self) -> None:
        """The task was cancelled or timed out: its job goes with it."""
        if self._running is not None:
            start, job = self._running
            start.stop(job)

    def _conclude(self, context: Any, outcome: Outcome) -> dict[str, Any]:
        self.embedmill_run = str((outcome.body or {}).get("run_id", ""))
        if outcome.body is not None:
            context["ti"].xcom_push(key="report", value=outcome.body)
        body = outcome.body or {}
        error = body.get("error", {})
        if outcome.code in (0, 3) and body and not error:
            if outcome.code == 3:
                self.log.warning("records in the scope are in quarantine; `embedmill status` counts them by reason")
            return body
        message = f"exit {outcome.code}: " + (
            error.get("message") or self.reasons.get(outcome.code, "see the log above")
        )
        # A wrong setting, a difference or a refusal will be the same in a minute; a lost lease will not.
        if outcome.code in (2, 4, 5) and error.get("kind") != "LeaseHeldError":
            raise AirflowFailException(message)
        raise AirflowException(message)


_REASONS = {0: "the command ended without its report", 4: "verification or the gate found a difference; see `report`"}


def steps(scope: Arguments, *, priority: int, build: bool = False) -> dict[str, EmbedmillOperator]:
    """The four steps of a run, in a row; not for a build, an empty plan skips what comes after it."""
    extra = ["--build"] if build else []
    engines = {"extract": "spark", "plan": "spark", "embed": "ray", "publish": "spark"}
    made = {
        name: EmbedmillOperator(
            task_id=name,
            command=("step", name, *extra),
            arguments=scope,
            engine=engine,
            priority_weight=priority + place,
        )
        for place, (name, engine) in enumerate(engines.items())
    }
    made["extract"] >> made["plan"]
    if build:
        made["plan"] >> made["embed"]
    else:
        made["plan"] >> something_to_do.override(priority_weight=priority + 2)(made["plan"].output) >> made["embed"]
    made["embed"] >> made["publish"]
    return made


@task.short_circuit(retries=0, pool="default_pool", ignore_downstream_trigger_rules=False)
def something_to_do(plan: Any) -> bool:
    """False skips the rest, but for what asks to run in any case: the index holds what it should."""
    return not plan["empty"]
