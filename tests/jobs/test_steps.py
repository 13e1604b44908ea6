"""The steps as commands of their own: together they are a run, and other runs may come between any two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.cli.reconcile import Step
from tests.support.workspace import TEXTS, Ran, Workspace, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here")

STEPS = [step.value for step in Step]


def step(space: Workspace, name: str, *more: str, run_id: str = "night-1") -> Ran:
    return space.call("step", name, "--run-id", run_id, *more)


def steps(space: Workspace, *more: str, run_id: str = "night-1") -> Ran:
    for name in STEPS:
        ran = step(space, name, *more, run_id=run_id)
        assert ran.code == 0, ran
    return ran


def runs(space: Workspace) -> dict[str, str]:
    return {r["run_id"]: r["status"] for r in space.call("status").body["last_runs"]}


def test_four_steps_are_one_run_with_one_report(workspace: Workspace, encoder_on_ray: None) -> None:
    assert step(workspace, "extract").body["documents"]["read"] == 8
    assert runs(workspace) == {"night-1": "running"}
    planned = step(workspace, "plan").body
    assert planned["chunks"]["embedded"] == 8 and not planned["empty"]
    assert planned["tokens"]["embedded"] > 8 and set(planned["estimate"]) == {"seconds", "usd"}
    assert step(workspace, "embed").body["chunks"]["embedded"] == 8
    body = step(workspace, "publish").body
    assert body["status"] == "ok" and body["run_id"] == "night-1"
    assert body["documents"]["read"] == 8 and body["chunks"]["embedded"] == 8
    assert body["index_rows"] == {"upserted": 8, "deleted": 0, "after": 8}
    assert all(body["seconds"][name] > 0 for name in STEPS)
    assert runs(workspace) == {"night-1": "ok"}
    assert workspace.verify().code == 0
    assert not [p for p in (workspace.root / "state" / "work").iterdir() if p.name == "night-1"], "text is left behind"


def test_an_empty_plan_ends_the_run(ran: Workspace) -> None:
    step(ran, "extract")
    assert step(ran, "plan").body["empty"]
    assert runs(ran)["night-1"] == "ok"


def test_a_run_between_two_steps_is_seen_by_the_next(ran: Workspace) -> None:
    """Another run changes the very messages that were planned: what is published is the newest, and nothing returns."""
    ran.day("general", [message(0, TEXTS[0]), message(9, "The tram stops at the museum")])
    for name in ("extract", "plan", "embed"):
        step(ran, name)
    ran.day("general", [message(0, "The lockers moved to the station")])
    assert ran.run().code == 0
    late = step(ran, "publish")
    assert late.code == 0 and late.body["index_rows"]["upserted"] == 0
    assert ran.verify().code == 0
    hits = ran.call("search", "tram museum", "--team", "T01").body["hits"]
    assert not [hit for hit in hits if "tram" in hit["text"]]


def test_embed_and_publish_plan_where_no_plan_is_left(ran: Workspace) -> None:
    ran.day("general", [message(9, "The tram stops at the museum")])
    step(ran, "extract")
    body = step(ran, "publish").body
    assert counts(Ran(0, body, "")) == {"embedded": 1, "deleted": 4}
    assert ran.verify().code == 0


@pytest.mark.parametrize("killed", ["embed", "publish"])
def test_a_step_that_was_killed_half_way_is_repeated(
    workspace: Workspace, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger must not hold a row twice, and no stored text is embedded again."""
    from indexers.milvus.index import MilvusIndex
    from jobs.state.store import State

    class Killed(BaseException):
        pass

    for name in STEPS[: STEPS.index(killed)]:
        step(workspace, name)
    at: tuple[type, str] = (State, "append") if killed == "embed" else (MilvusIndex, "flush")
    real: Callable[..., Any] = getattr(*at)

    def after(self: Any, *given: Any) -> Any:
        real(self, *given)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(*at, after)
        with pytest.raises(Killed):
            step(workspace, killed)
    body = step(workspace, "publish").body
    assert body["chunks"]["total"] == 8
    status = workspace.call("status").body["tables"]
    assert status["published"] == 8 and status["vectors"] == 8
    assert workspace.verify().code == 0


def test_a_plan_over_budget_stops_before_embedding(workspace: Workspace) -> None:
    step(workspace, "extract")
    refused = step(workspace, "plan", "--max-tokens", "10")
    assert refused.code == 5 and "--max-tokens 10" in refused.err and "tokens (about" in refused.err
    assert step(workspace, "embed", "--max-tokens", "10").code == 5, "embed plans anew and must keep to the budget too"
    assert workspace.run("--max-tokens", "10").code == 5
    assert workspace.call("status").body["tables"]["vectors"] == 0


def test_the_steps_of_a_build_end_in_a_version_that_the_gate_examines(ran: Workspace) -> None:
    body = steps(ran, "--build", run_id="build-1").body
    assert body["index"] == "messages__v2" and body["chunks"]["reused"] == 8
    assert ran.call("status").body["index"]["live"] == "messages__v1"
    moved = ran.call("reindex").body
    assert moved["activated"] and moved["index"] == "messages__v2" and moved["index_rows"]["upserted"] == 0


def test_a_run_id_is_a_plain_name(workspace: Workspace) -> None:
    assert step(workspace, "extract", run_id="../out").code == 2
    assert step(workspace, "extract", "--to-model", "wordllama").code == 2
