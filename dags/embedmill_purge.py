"""embedmill_purge: deletion requests; removes documents everywhere and leaves a receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.sdk import Param, dag
from airflow.sdk.exceptions import AirflowFailException

from embedmill_airflow.operator import DEFAULTS, PURGE, EmbedmillOperator
from embedmill_airflow.params import DATE, TEAM, option


def what(context: Mapping[str, Any]) -> list[str]:
    """Which documents. All of a team only where that was said in so many words."""
    params = context["params"]
    narrow = option("--channel", params["channel"]) + option("--ids", params["ids"])
    narrow += option("--before", params["before"])
    if not narrow and not params["whole_team"]:
        raise AirflowFailException("params channel, ids, before: give one of them, or set whole_team")
    if narrow and params["whole_team"]:
        raise AirflowFailException("params whole_team: leave channel, ids and before out")
    return option("--team", params["team"]) + narrow


@dag(
    dag_id="embedmill_purge",
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args=DEFAULTS,
    tags=["embedmill"],
    params={
        "team": Param(**TEAM, description="Whose documents"),
        "channel": Param(None, type=["null", "string"], minLength=1, description="Only this channel id"),
        "ids": Param(
            None, type=["null", "array"], items={"type": "string", "minLength": 1}, description="Only these documents"
        ),
        "before": Param(None, **DATE, description="Only what was created before this (UTC)"),
        "whole_team": Param(False, type="boolean", description="Everything of the team"),
    },
)
def purge() -> None:
    """### Remove documents from the index, the vector store and the text tables, for good.

    The receipt is the XCom of the task `purge`. Later runs keep the documents out, unless their source brings a version
    that is newer than the purge. `verify` proves the index afterwards.
    """
    removed = EmbedmillOperator(
        task_id="purge", command=("purge",), arguments=what, engine="none", priority_weight=PURGE
    )
    verify = EmbedmillOperator(
        task_id="verify",
        command=("verify",),
        arguments=lambda context: option("--team", context["params"]["team"]),
        engine="spark",
        priority_weight=PURGE + 1,
    )
    removed >> verify


purge()
