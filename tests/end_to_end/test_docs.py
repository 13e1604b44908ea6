"""The pages name tests and files: what they name is there."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

PAGES = ("docs/engine-behaviour.md", "docs/extending.md", "docs/guarantees.md")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_tests_that_are_there(page: str) -> None:
    named = re.findall(r"(test_\w+\.py)(?:::(test_\w+))?", (ROOT / page).read_text())
    assert named
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    missing = []
    for file, test in set(named):
        path = files.get(file)
        if path is None or (test and not re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE)):
            missing.append(f"{file}::{test}")
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_that_are_there(page: str) -> None:
    named = re.findall(
        r"`((?:embedding|indexers|jobs|findings|docs)/[\w/.-]+\.(?:py|sh|md))", (ROOT / page).read_text()
    )
    assert not [name for name in named if not (ROOT / name).is_file()]
