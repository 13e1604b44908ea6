"""Entry point of a job that a launcher starts on a cluster: the command line, its outcome in one marked line.

A cluster keeps a job's standard output and error in one log, so the launcher gives a mark in EMBEDMILL_OUTCOME_MARK and
finds the exit code and the JSON object in the line that begins with it. A job that is killed writes no such line.

`spark-submit` runs this file by its path; then the folder that Python puts on the path is this package's own, whose
modules (`plan`, `state`, …) must not be found by the imports of others.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

if sys.path and sys.path[0] == str(Path(__file__).resolve().parent):
    del sys.path[0]

from jobs.cli import app

MARK = "EMBEDMILL_OUTCOME_MARK"


def main() -> None:
    """Run the command line; with a mark, say how it ended in a line of standard output."""
    app.heed_signals()
    mark = os.environ.pop(MARK, "")
    if not mark:
        app.main()
        return
    said, code = io.StringIO(), 1
    try:
        with redirect_stdout(said):
            app.main()
        code = 0
    except SystemExit as end:
        code = app.exit_code(end)
        raise
    finally:
        # On a line of its own, whatever was written last.
        print("\n" + mark, json.dumps({"code": code, "body": _object(said.getvalue())}), flush=True)


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        print(text, file=sys.stderr, flush=True)  # for a person
        return None


if __name__ == "__main__":
    main()
