"""The pages name tests and files: what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/engine-behaviour.md", "docs/guarantees.md")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_tests_that_are_there(page: str) -> None:
    named = re.findall(r"(test_\w+\.py)(?:::(test_\w+))?", (ROOT / page).read_text())
    assert named
    missing = []
    for file, test in set(named):
        path = ROOT / "tests" / file
        if not path.is_file() or (test and not re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE)):
            missing.append(f"{file}::{test}")
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_that_are_there(page: str) -> None:
    named = re.findall(
        r"`((?:embedding|indexers|jobs|findings|docs)/[\w/.-]+\.(?:py|sh|md))", (ROOT / page).read_text()
    )
    assert not [name for name in named if not (ROOT / name).is_file()]
