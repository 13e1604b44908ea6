"""checkov, which asks for other versions of what we use: it lives in an environment of its own.

EMBEDMILL_CHECKOV names another checkov than that of .venv-checkov.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT


@dataclass(frozen=True, slots=True, order=True)
class FailedCheck:
    """A check that a resource did not pass, and the file that it is in, from the folder that was looked at."""

    check_id: str
    resource: str
    file: str


def find_checkov() -> Path | None:
    """Return the command, or None where there is none."""
    command = Path(os.environ.get("EMBEDMILL_CHECKOV") or ROOT / ".venv-checkov" / "bin" / "checkov")
    return command if command.exists() else None


def failed_checks(checkov: Path, path: Path, framework: str) -> list[FailedCheck]:
    """Return the checks that ``path`` does not pass, without asking the network. Raises where a file was not read."""
    command = [str(checkov), "--directory", str(path), "--framework", framework, "--skip-download", "--compact"]
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*command, "--quiet", "--output", "json"], env=given, capture_output=True, text=True)
    reports = json.loads(done.stdout)
    failed = []
    for report in reports if isinstance(reports, list) else [reports]:
        if report["summary"]["parsing_errors"] or not report["summary"]["passed"]:
            raise ValueError(f"checkov could not read {path}: {report['summary']}")
        for check in report["results"]["failed_checks"]:
            failed.append(FailedCheck(check["check_id"], check["resource"], check["file_path"].lstrip("/")))
    return sorted(failed)
