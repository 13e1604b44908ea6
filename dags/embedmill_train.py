"""embedmill_train: a model tuned on pairs, examined, approved by a person, and an index built with it; on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, task

from embedmill_airflow.operator import DEFAULTS, EmbedmillOperator
from embedmill_airflow.params import MINUTES, MODEL, TOKENS, option


def pairs(context: Mapping[str, Any]) -> list[str]:
    """What is trained on, the model's name, and what it may take."""
    params = context["params"]
    what = option("--pairs", params["pairs"]) or ["--threads"]
    limits = option("--max-tokens", params["max_tokens"]) + option("--max-minutes", params["max_minutes"])
    return option("--name", params["name"]) + what + limits


def version(context: Mapping[str, Any]) -> list[str]:
    """The version that this run has made, whatever is the challenger by now."""
    return [context["params"]["name"], "--version", context["ti"].xcom_pull(task_ids="train")["model"].split("/")[-1]]


@task.branch(retries=0, pool="default_pool")
def ask_first(params: Any = None) -> str:
    """A person, or nobody."""
    return "approve" if params["approve"] else "what_next"


@task.branch(retries=0, pool="default_pool", trigger_rule="none_failed_min_one_success")
def what_next(params: Any = None) -> str:
    """An index of the model, or the champion at once."""
    return "reindex" if params["reindex"] else "promote"


@dag(
    dag_id="embedmill_train",
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args=DEFAULTS | {"pool": "default_pool"},  # it writes to no index
    tags=["embedmill"],
    params={
        "reason": Param(type="string", minLength=3, maxLength=200, description="Why; shown with the run"),
        "name": Param(**MODEL, description="What the model is called in the registry"),
        "pairs": Param(
            None,
            type=["null", "string"],
            minLength=1,
            description="A JSONL file of anchor, positive and negative, where the job runs; without it threads and "
            "titles of training.teams",
        ),
        "max_tokens": Param(None, **TOKENS, description="Stop before training on more tokens than this"),
        "max_minutes": Param(None, **MINUTES, description="Stop at a checkpoint when so many have passed"),
        "approve": Param(True, type="boolean", description="Ask a person before the model becomes the champion"),
        "reindex": Param(True, type="boolean", description="Build an index with the champion and make it live"),
    },
)
def train() -> None:
    """### Tune a model and move searches to it.

    `train` can be cleared and run again: it goes on from its last checkpoint. `gate` refuses a model that is worse than
    its base or the champion, that tells of its training, or that has seen what was purged since; its report is the
    task's XCom. Then a person is asked, `reindex` has `embedmill_reindex` build an index of this version and make it
    live, and `promote` moves the alias `champion` last: with `model.name = "models:/NAME@champion"` no run finds an
    index of another space than its model's but in the seconds between the two. Without `reindex` the alias moves
    alone, and what is configured by it refuses to work until an index of it is live. `embedmill rollback` and
    `embedmill promote NAME --back` undo both.
    """
    made = EmbedmillOperator(task_id="train", command=("train",), arguments=pairs, engine="none", writes=False)
    gate = EmbedmillOperator(
        task_id="gate",
        command=("promote", "--check"),
        arguments=version,
        engine="none",
        writes=False,
        reasons={4: "the model is refused; `reasons` in the XCom `report` say why"},
    )
    approve = ApprovalOperator(
        task_id="approve",
        execution_timeout=None,
        subject="Make the new model the champion?",
        body="Reason: {{ params.reason }}\n\n{% set made = ti.xcom_pull(task_ids='train') %}{{ made.model }}, by "
        "{{ made.evaluation.questions }} held-out questions: nDCG@10 {{ made.evaluation.before }} before, "
        "{{ made.evaluation.after }} now ({{ made.evaluation.verdict }}). Planted texts are exposed by "
        "{{ made.privacy.exposure }} bits of {{ made.privacy.limit }}.",
    )
    reindex = TriggerDagRunOperator(
        task_id="reindex",
        trigger_dag_id="embedmill_reindex",
        # Of this version: a cleared `train` makes another one. A task that is cleared has the same run go again.
        trigger_run_id="{{ ('train__' ~ ti.xcom_pull(task_ids='train').model.split('/')[-1] ~ '__' ~ run_id)[:240] }}",
        reset_dag_run=True,
        conf={"reason": "{{ params.reason }}", "model": "{{ ti.xcom_pull(task_ids='train').model }}"},
        wait_for_completion=True,
        deferrable=True,
        poke_interval=20,
        retries=0,  # its tasks have their own
    )
    promote = EmbedmillOperator(
        task_id="promote",
        command=("promote",),
        arguments=version,
        engine="none",
        writes=False,
        trigger_rule="none_failed_min_one_success",
    )
    ask, following = ask_first(), what_next()
    made >> gate >> ask >> [approve, following]
    approve >> following >> [reindex, promote]
    reindex >> promote


train()
