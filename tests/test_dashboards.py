"""Dashboards are generated, parse, and ask for series that there are. tests/end_to_end/test_prometheus.py has them answered."""

from __future__ import annotations

import json
import re
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from jobs.metrics.series import BY_NAME, PREFIX
from tests.support.dashboards import dashboards, expressions, generated

FILES = dashboards()


def test_the_files_are_what_the_generator_writes() -> None:
    assert generated() == FILES, "python deploy/grafana/dashboards.py"


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
    named = re.findall(rf"\b{PREFIX}(\w+)", expression)
    assert named and set(named) <= BY_NAME.keys()
    for name, matchers in re.findall(rf"\b{PREFIX}(\w+)\{{([^}}]*)\}}", expression):
        labels: Any = set(re.findall(r"(\w+)(?:=~|!=|=)", matchers))
        assert labels - {"index"} <= set(BY_NAME[name].labels), "a label that the series does not have"
