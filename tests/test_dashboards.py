"""Dashboards are generated, parse, and ask for series that there are. tests/end_to_end has them answered."""

from __future__ import annotations

import json
import re

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from jobs.config import load_config
from jobs.metrics.series import PREFIX
from jobs.serve.metrics import PREFIX as SERVE_PREFIX
from jobs.serve.metrics import ServeMetrics
from tests.support.dashboards import RUNS, SERVING, dashboards, expressions, generated
from tests.support.paths import ROOT
from tests.support.series import labels

FILES = dashboards()
LABELS = labels()


def test_the_files_are_what_the_generator_writes() -> None:
    assert generated() == FILES, "python deploy/grafana/dashboards.py"
    assert set(FILES) == {*RUNS, *SERVING}, "each is answered in tests/end_to_end"


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_is_what_grafana_s_own_types_hold(name: str) -> None:
    said = json.loads(FILES[name])
    again = json.loads(json.dumps(Dashboard.from_json(said), cls=JSONEncoder))
    assert again.keys() == said.keys() and len(again["panels"]) == len(said["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in said["panels"]]
    assert len(set(places)) == len(places), "no panel lies over another"
    assert all(panel["description"] and panel["title"] for panel in said["panels"])


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_parses_and_names_series_that_there_are(expression: str) -> None:
    promql_parser.parse(expression.replace("$index", "messages"))
    named = re.findall(rf"\b{PREFIX}\w+", expression)
    assert named and set(named) <= LABELS.keys()
    for name, matchers in re.findall(rf"\b({PREFIX}\w+)\{{([^}}]*)\}}", expression):
        asked = set(re.findall(r"(\w+)(?:=~|!=|=)", matchers))
        assert asked <= LABELS[name], "a label that the series does not have"


def test_each_series_of_the_query_service_is_told_and_described() -> None:
    """The table in docs/metrics.md and the dashboards go by SERIES: nothing may be told beside it."""
    told = ServeMetrics(load_config(ROOT / "docs" / "sample" / "embedmill.toml"), replica="a")
    told.requests.labels("/embed", "200").inc()
    told.seconds.labels("/embed").observe(0.1)
    told.served([("space", "messages__v1")])
    samples = [sample for family in text_string_to_metric_families(told.text().decode()) for sample in family.samples]
    assert {sample.name: set(sample.labels) | ({"le"} & LABELS[sample.name]) for sample in samples} == {
        name: has for name, has in LABELS.items() if name.startswith(SERVE_PREFIX)
    }
    assert {(sample.labels["index"], sample.labels["replica"]) for sample in samples} == {("messages", "a")}
