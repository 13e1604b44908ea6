"""The bodies: absent keys stay absent, nulls stay null, wrong types are refused, and what was written is read back."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from embedding.encoders.remote.cost import Cost
from jobs.bodies import BODIES
from jobs.bodies.answers import ErrorBody, IndexState, Setting
from jobs.bodies.base import ScopeBody
from jobs.bodies.purge import PurgedLog, PurgedScratch, PurgedStorage, PurgedTables
from jobs.bodies.run import Drift, Estimate, Gate, GateCheck, PlanBody, ReindexBody, RunReport
from jobs.cli.app import app
from jobs.cli.frame import error_object
from jobs.plan.plan import Plan
from jobs.report import Report
from jobs.scope import Scope

STEPS = {"extract": 1.0, "plan": 0.25, "embed": 0.0, "publish": 2.0}
REPORT = Report(
    "r1", "run", "s1", "messages__v1", Scope(("T1",), since=0).body(), 1_000_000, "ok", 5_000_000, seconds=STEPS
)
WRITTEN = (
    '{"run_id": "r1", "command": "run", "status": "ok", "space_id": "s1", "index": "messages__v1", '
    '"scope": {"team": ["T1"], "since": "1970-01-01T00:00:00Z"}, "started_at": "1970-01-01T00:00:01Z", '
    '"finished_at": "1970-01-01T00:00:05Z", "documents": {"read": 0, "quarantined": 0, "ignored": 0, "rejected": 0, '
    '"skipped": {}, "held_back": 0}, "partitions": {"listed": 0, "opened": 0}, "chunks": {"total": 0, "embedded": 0, "reused": 0, '
    '"updated": 0, "deleted": 0, "unchanged": 0, "renamed": 0}, "tokens": {"embedded": 0, '
    '"unknown_texts": 0}, "index_rows": {"upserted": 0, "deleted": 0, "after": 0}, "seconds": {"extract": 1.0, "plan": 0.25, "embed": 0.0, "publish": 2.0, '
    '"total": 4.0}}'
)


def test_a_report_is_written_as_the_contract_has_it() -> None:
    assert REPORT.body().to_json() == WRITTEN


def test_what_a_body_adds_to_the_report_comes_last() -> None:
    plan = PlanBody(**dict(REPORT.body()), estimate=Estimate(seconds=0.0, usd=0.5))
    assert plan.to_json() == WRITTEN[:-1] + ', "estimate": {"seconds": 0.0, "usd": 0.5}}'
    gate = Gate(passed=True, checks=(GateCheck(name="vectors", passed=True, value=0, limit=0.95, detail="é"),))
    reindex = ReindexBody(**dict(REPORT.body()), gate=gate, activated=False, previous=None)
    said = '"checks": [{"name": "vectors", "passed": true, "value": 0, "limit": 0.95, "detail": "é"}]'
    assert reindex.to_json().endswith(f'"gate": {{"passed": true, {said}}}, "activated": false, "previous": null}}')


def test_keys_without_a_value_are_left_out_only_where_the_contract_does() -> None:
    assert ScopeBody().to_json() == "{}" and Drift(queries=0).to_json() == '{"queries": 0}'
    assert json.loads(IndexState(alias="m", live=None, versions=()).to_json())["live"] is None
    assert Setting(key="k", value=None, origin="file").to_json() == '{"key": "k", "value": null, "from": "file"}'
    assert Setting(key="k", value=(), origin="file").to_json() == '{"key": "k", "value": [], "from": "file"}'
    storage = PurgedStorage(
        tables=PurgedTables(state="removed", files=1),
        index={},
        scratch=PurgedScratch(state="removed", folders=0),
        engines_log=PurgedLog(state="removed"),
    )
    assert '"engines.log": {"state": "removed"}' in storage.to_json()
    assert PurgedStorage.model_validate_json(storage.to_json()) == storage


def test_a_wrong_type_an_unknown_key_and_a_change_are_refused() -> None:
    for wrong in ({"queries": "1"}, {"queries": True}, {"queries": 1, "other": 1}):
        with pytest.raises(ValidationError):
            Drift.model_validate(wrong)
    with pytest.raises(ValidationError):
        Drift(queries=1).queries = 2


def test_a_run_goes_on_from_what_it_has_written() -> None:
    first = Report("r1", "run", "s1", "m__v1", ScopeBody(), 1_000_000, finished_at=1_000_000, seconds=dict(STEPS))
    first.plan, first.embedded, first.cost = Plan(total=5, reuse=2), 3, Cost(requests=1, usd=0.25)
    second = Report("r1", "run", "s1", "", ScopeBody(), 9_000_000, finished_at=1_000_000)
    second.go_on(RunReport.model_validate_json(first.body().to_json()))
    assert second.body() == first.body()


def test_a_report_of_an_earlier_or_later_release_is_read() -> None:
    body = json.loads(WRITTEN)
    del body["documents"]["ignored"], body["tokens"]["unknown_texts"]
    body["tokens"]["later"] = 1
    found = RunReport.model_validate_json(json.dumps(body), extra="ignore")
    assert (found.documents.ignored, found.tokens.unknown_texts) == (0, 0)


def test_every_command_has_a_body() -> None:
    grouped = {(g.name, c.name) for g in app.registered_groups for c in (g.typer_instance or app).registered_commands}
    commands = {f"{group}-{command}" for group, command in grouped}
    answering = {command.name for command in app.registered_commands} - {"serve"}  # whose answers are over HTTP
    assert answering | commands == set(BODIES) - {"error"}


def test_an_error_is_the_body_of_an_error() -> None:
    ErrorBody.model_validate_json(error_object("ConfigError", "a line", 2))
