"""The real checkov over files: which of its checks fail, and where.

`make checkov` installs it into .venv-checkov, and EMBEDMILL_CHECKOV names another one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT


@dataclass(frozen=True, slots=True, order=True)
class Failed:
    """A check that failed: its id, what it failed of, in which file, and what it asks for."""

    check: str
    resource: str
    file: str
    asks: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What checkov looked at: how many checks passed, and those that failed."""

    passed: int
    failed: tuple[Failed, ...]


def find_checkov() -> Path | None:
    """The program; None where it is not installed."""
    program = Path(os.environ.get("EMBEDMILL_CHECKOV") or ROOT / ".venv-checkov" / "bin" / "checkov")
    return program if program.exists() else None


def missing() -> str:
    """Why checkov cannot be run; "" where it can."""
    return "" if find_checkov() else "no checkov: .venv-checkov/bin/checkov is not there; `make checkov` installs it"


def look(folder: Path, framework: str, *, skip: Sequence[str] = (), timeout: float = 300) -> Looked:
    """Run checkov over a folder, with nothing fetched. Raises AssertionError where it could not read a file of it.

    Args:
        folder: What is looked at.
        framework: "kubernetes", "terraform", ...
        skip: Ids of checks that are not made.
        timeout: In seconds.
    """
    program = find_checkov()
    assert program is not None, missing()
    command = [str(program), "--directory", str(folder), "--framework", framework, "--output", "json"]
    command += ["--skip-download", "--quiet", *(["--skip-check", ",".join(skip)] if skip else [])]
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    said = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env | {"LOG_LEVEL": "ERROR"})
    assert said.returncode in (0, 1), said.stderr[-2000:]
    body: Any = json.loads(said.stdout)
    assert isinstance(body, dict) and "results" in body, f"checkov found nothing of {framework} in {folder}"
    assert not body["results"].get("parsing_errors"), body["results"]["parsing_errors"]
    failed = [
        Failed(one["check_id"], one["resource"], one["file_path"].lstrip("/"), one["check_name"])
        for one in body["results"]["failed_checks"]
    ]
    return Looked(body["summary"]["passed"], tuple(sorted(failed)))


def reviewed(file: Path) -> Mapping[str, str]:
    """The checks that a reviewed list skips: id to reason."""
    found: dict[str, str] = yaml.safe_load(file.read_text())["skip"]
    return found
