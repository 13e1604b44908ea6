"""embedmill_reindex: a new version of the index, built beside the live one, examined, and made live; on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from embedmill_airflow.operator import BUILDERS, DEFAULTS, REINDEX, EmbedmillOperator, steps
from embedmill_airflow.params import INDEX, TEAM, TOKENS, USD, budget, option


def target(context: Mapping[str, Any]) -> list[str]:
    """Which index, model and teams. Refuses what could not be activated before anything is built."""
    params = context["params"]
    if params["activate"] and params["teams"]:
        raise AirflowFailException("params activate and teams: a version of some teams cannot become the live one")
    return (
        option("--index", params["index"]) + option("--to-model", params["model"]) + option("--team", params["teams"])
    )


def limited(context: Mapping[str, Any]) -> list[str]:
    """The target, and what it may cost."""
    return target(context) + budget(context["params"])


@task.branch(retries=0, pool="default_pool")
def what_next(params: Any = None) -> str | None:
    """Ask first, activate, or leave the version beside the live one."""
    if not params["activate"]:
        return None
    return "approve" if params["approve"] else "activate"


@dag(
    dag_id="embedmill_reindex",
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args=DEFAULTS | {"pool": BUILDERS},
    tags=["embedmill"],
    params={
        "reason": Param(type="string", minLength=3, maxLength=200, description="Why; shown with the run"),
        "index": Param(None, **INDEX, description="Refuse to work if the configuration's index has another name"),
        "model": Param(None, type=["null", "string"], minLength=1, description="Build with this instead of model.name"),
        "teams": Param(
            None, type=["null", "array"], items=TEAM, description="Only these teams; such a version is never made live"
        ),
        "activate": Param(True, type="boolean", description="Make the version live when the gate passes"),
        "approve": Param(False, type="boolean", description="Ask a person between the gate and the cutover"),
        "max_tokens": Param(None, **TOKENS, description="Stop before embedding more tokens than this"),
        "max_usd": Param(None, **USD, description="Stop before embedding where the estimate is above"),
    },
)
def reindex() -> None:
    """### Build a new version of the index and move searches to it.

    The build takes stored vectors where the space is the same, gives way to nightly runs, and can be cleared and run
    again at any task. `gate` examines the version; its report is the task's XCom. `activate` brings in what changed
    meanwhile, examines again and moves the alias; `embedmill rollback` moves it back in seconds.
    """
    run = steps(limited, priority=REINDEX, build=True)
    gate = EmbedmillOperator(
        task_id="gate",
        command=("reindex", "--no-activate"),
        arguments=target,
        engine="spark",
        priority_weight=REINDEX + 5,
    )
    approve = ApprovalOperator(
        task_id="approve",
        pool="default_pool",
        execution_timeout=None,
        subject="Make the new version of the index live?",
        body="Reason: {{ params.reason }}\n\nThe gate's report is the XCom `report` of the task `gate`.",
    )
    activate = EmbedmillOperator(
        task_id="activate",
        command=("reindex", "--activate"),
        arguments=target,
        engine="spark",
        priority_weight=REINDEX + 6,
        trigger_rule="none_failed_min_one_success",
    )
    branch = what_next()
    run["publish"] >> gate >> branch >> [approve, activate]
    approve >> activate


reindex()
