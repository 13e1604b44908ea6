"""embedmill_backfill: what was created on a day, for Airflow's own backfills; or a window and some teams, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from embedmill_airflow.operator import BACKFILL, DEFAULTS, EmbedmillOperator, steps
from embedmill_airflow.params import DATE, TEAM, TOKENS, USD, budget, option


def scope(context: Mapping[str, Any]) -> list[str]:
    """The window of the params, else the run's own interval; and the teams."""
    params, run = context["params"], context["dag_run"]
    since, until = params["since"], params["until"]
    if since is None and until is None:
        if run.run_type == "manual" or run.data_interval_start is None:
            raise AirflowFailException("params since and until: give a window, or use `airflow backfill create`")
        since, until = (f"{moment:%Y-%m-%dT%H:%M:%S}" for moment in (run.data_interval_start, run.data_interval_end))
    return option("--since", since) + option("--until", until) + option("--team", params["teams"])


def limited(context: Mapping[str, Any]) -> list[str]:
    """The scope, and what it may cost."""
    params = context["params"]
    return scope(context) + budget(params) + option("--allow-mass-delete", params["allow_mass_delete"])


@task.short_circuit(retries=0, pool="default_pool")
def asked_for(dag_run: Any = None) -> bool:
    """False for the runs that the schedule makes: it is there for the intervals, and new days are the nightly run's."""
    return bool(dag_run.run_type != "scheduled")


@dag(
    dag_id="embedmill_backfill",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    default_args=DEFAULTS,
    tags=["embedmill"],
    params={
        "since": Param(None, **DATE, description="Created at or after this (UTC)"),
        "until": Param(None, **DATE, description="Created before this (UTC)"),
        "teams": Param(None, type=["null", "array"], items=TEAM, description="Only these teams; none is all"),
        "max_tokens": Param(None, **TOKENS, description="Stop before embedding more tokens than this"),
        "max_usd": Param(None, **USD, description="Stop before embedding where the estimate is above"),
        "allow_mass_delete": Param(False, type="boolean", description="Delete past limits.max_delete_*"),
    },
)
def backfill() -> None:
    """### Embed what was created in a window.

    `airflow backfill create --dag-id embedmill_backfill --from-date 2025-03-03 --to-date 2025-03-07` makes a run for
    each day, in any order and several at once; they take turns at the index. A trigger by hand takes `since`, `until`
    and `teams`. A second backfill of the same days embeds nothing.
    """
    run = steps(limited, priority=BACKFILL)
    verify = EmbedmillOperator(
        task_id="verify", command=("verify",), arguments=scope, engine="spark", priority_weight=BACKFILL + 5
    )
    asked_for() >> run["extract"]
    run["publish"] >> verify


backfill()
