"""The pages that are made from the models are current, and the schemas hold for what commands print."""

from __future__ import annotations

import json

import pytest
from jsonschema import ValidationError

from jobs.cli.frame import error_object
from jobs.cli.reference import pages
from tests.support.paths import ROOT
from tests.support.workspace import Workspace, check_schema


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_is_what_the_models_make(name: str) -> None:
    file = ROOT / "docs" / name
    assert file.exists() and file.read_text(encoding="utf-8") == pages()[name], "run `make docs-generate`"


def test_no_schema_is_left_of_a_command_that_is_gone() -> None:
    assert {f"schemas/{file.name}" for file in (ROOT / "docs" / "schemas").iterdir()} <= set(pages())


def test_every_key_has_a_meaning() -> None:
    rows = [line.split(" | ") for line in pages()["configuration.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 70 and not [row[0] for row in rows if len(row) != 4 or not row[1].strip()]


def test_a_command_prints_what_its_schema_says(workspace: Workspace) -> None:
    """``Workspace.call`` checks the body of every command that a test gives, by the published schema."""
    body = workspace.call("status").body
    check_schema("error", json.loads(error_object("ConfigError", "a line", 2)))
    for wrong in (body | {"more": 1}, body | {"lag_seconds": "1"}, {k: v for k, v in body.items() if k != "index"}):
        with pytest.raises(ValidationError):
            check_schema("status", wrong)
    with pytest.raises(ValidationError):
        check_schema("reindex", body)
