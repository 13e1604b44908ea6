"""The pages name tests and files: what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from jobs.cli.app import app
from tests.support.paths import ROOT

PAGES = ("docs/architecture.md", "docs/engine-behaviour.md", "docs/extending.md", "docs/guarantees.md")
NAMING = (*PAGES, "docs/glossary.md", "CONTRIBUTING.md")
MARKDOWN = sorted(str(path.relative_to(ROOT)) for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md"))
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


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


@pytest.mark.parametrize("page", NAMING)
def test_a_page_names_files_that_are_there(page: str) -> None:
    named = re.findall(
        r"`((?:embedding|indexers|jobs|dags|tests|findings|docs)/[\w/.-]+\.(?:py|sh|md))", (ROOT / page).read_text()
    )
    assert not [name for name in named if not (ROOT / name).is_file()]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page to files or headings that are not there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    return broken


def _in_code(page: Path) -> str:
    """Return a page with a backtick before each line of its fenced blocks."""
    return _FENCE.sub(lambda block: re.sub("^", "`", block[0], flags=re.MULTILINE), page.read_text())


def unknown_commands(page: Path) -> list[str]:
    """Return the commands and options of ``embedmill`` that a page has in code, and that do not exist."""
    commands = getattr(typer.main.get_command(app), "commands", {})
    unknown = []
    for code in re.findall(r"(?:`|&& )embedmill ([a-z][^`\n#&|]*)", _in_code(page)):
        name, *words = code.split()
        command = commands.get(name)
        if words and words[0] in (group := getattr(command, "commands", {})):
            command = group[words[0]]  # of a group, as `state migrate`
        if command is None:
            unknown.append(code)
            continue
        options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        unknown += [
            f"{name} {word}"
            for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)
            if word not in options | {"--help"}
        ]
    return unknown


def unknown_targets(page: Path) -> list[str]:
    """Return the targets of ``make`` that a page has in code, and that the Makefile has not."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return [name for name in re.findall(r"`make ([a-z-]+)", _in_code(page)) if name not in targets]


@pytest.mark.parametrize("page", MARKDOWN)
def test_links_commands_and_targets_of_a_page_are_there(page: str) -> None:
    file = ROOT / page
    assert not broken_links(file) + unknown_commands(file) + unknown_targets(file)


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n[a](#a-page) [b](#b) [c](missing.md) [d](https://example.com)\n"
        "`embedmill run --team T` `embedmill walk` `embedmill run --never` `make test` `make haste`\n"
        "embedmill is prose\n```sh\nembedmill fly  # up\nmake speed\n```\n"
    )
    assert broken_links(page) == ["#b", "missing.md"]
    assert unknown_commands(page) == ["walk", "run --never", "fly  "]
    assert unknown_targets(page) == ["haste", "speed"]
