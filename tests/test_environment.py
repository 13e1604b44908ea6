"""What the pinned environment costs each process that runs in it."""

from __future__ import annotations

import subprocess
import sys


def test_no_worker_builds_a_grammar_when_it_starts() -> None:
    """Ray's workers and Airflow's tasks import jsonschema, which imports what checks its formats where it is there."""
    said = "import sys, jsonschema; print('lark' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
