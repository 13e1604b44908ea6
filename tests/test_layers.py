"""Imports run one way: the contracts in pyproject.toml hold, and each kind of breach is found."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("embedding", "indexers", "jobs")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(tree: Path) -> tuple[int, str]:
    """Return the exit code of import-linter over the packages in ``tree``, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LINT, "--no-cache"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def outward_imports(folder: Path) -> list[str]:
    """Return the imports of ``PACKAGES`` in the files below ``folder``, as ``file: module``."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found += [f"{file.name}: {name}" for name in names if name.partition(".")[0] in PACKAGES]
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages, to add imports to."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_run_one_way() -> None:
    code, output = lint(ROOT)
    assert code == 0, output


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("embedding/errors.py", "import jobs.config", "roots"),
        ("embedding/ids.py", "import indexers.rows", "roots"),
        ("indexers/rows.py", "from embedding import chunking", "indexers know"),
        ("jobs/state/tables.py", "from jobs.state import store", "no circle among siblings"),
        ("jobs/sources/base.py", "from jobs.sources import slack_export", "no circle among siblings"),
        ("jobs/state/tables.py", "import jobs.commands.run", "layers of jobs"),
        ("jobs/steps.py", "def _late() -> None:\n    import jobs.cli.app", "layers of jobs"),  # inside a function
        (
            "jobs/pipeline.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jobs.steps",
            "layers of jobs",
        ),
        ("jobs/publish/prepare.py", "import jobs.embed.embed", "layers of jobs"),  # beside, neither up nor down
        ("embedding/tokens/counter.py", "import embedding.chunking", "layers of embedding"),
        ("embedding/encoders/base.py", "import embedding.encoders.choose", "layers of embedding.encoders"),
        ("indexers/base.py", "import indexers.milvus.index", "layers of indexers"),
    ],
)
def test_a_breach_is_found(tree: Path, file: str, line: str, contract: str) -> None:
    with (tree / file).open("a") as module:
        module.write(f"\n{line}\n")
    code, output = lint(tree)
    assert code == 1, output
    broken = [line for line in output.splitlines() if line.rstrip().endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), output


def test_dags_import_none_of_the_packages() -> None:
    assert not outward_imports(ROOT / "dags")


def test_an_import_in_a_dag_is_found(tmp_path: Path) -> None:
    (tmp_path / "nightly.py").write_text("def late():\n    from jobs.steps import extract\n")
    assert outward_imports(tmp_path) == ["nightly.py: jobs.steps"]
