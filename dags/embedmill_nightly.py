"""embedmill_nightly: every source partition that changed since the last run, then a proof, then an asset event."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import Asset, dag

from embedmill_airflow.operator import DEFAULTS, NIGHTLY, EmbedmillOperator, steps

INDEX_ASSET = Asset(name="embedmill_index", uri="embedmill://index/live")


@dag(
    dag_id="embedmill_nightly",
    schedule=os.environ.get("EMBEDMILL_NIGHTLY_CRON", "0 2 * * *") or None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    tags=["embedmill"],
)
def nightly() -> None:
    """### Make the index equal to its sources.

    Reads every source partition whose content changed since it was read last, whatever its date: an edit today to a
    message of last year is caught. Unchanged partitions are not opened. `plan` shows what is to be done as its XCom;
    an empty plan skips the rest. `verify` compares index, ledger and sources, and tells who follows the asset
    `embedmill_index`. `promises` fails where what `[slo]` promises was missed twice. Any task can be cleared and run
    again.
    """
    run = steps(lambda context: [], priority=NIGHTLY)
    verify = EmbedmillOperator(
        task_id="verify", command=("verify",), engine="spark", priority_weight=NIGHTLY + 5, outlets=[INDEX_ASSET]
    )
    promises = EmbedmillOperator(
        task_id="promises",
        command=("status", "--check", "--runs", "2"),
        engine="none",
        writes=False,
        reasons={4: "a promise of [slo] was missed at the end of the last two runs, and is now; see `report`"},
        pool="default_pool",
        trigger_rule="none_failed",  # also where there was nothing to do
    )
    run["publish"] >> verify >> promises


nightly()
