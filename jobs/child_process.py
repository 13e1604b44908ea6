"""Starts Python processes that serve this one through a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe


def start_serving(
    module: str, *arguments: int, environment: Mapping[str, str] | None = None, quiet: bool = False
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a process that calls ``serve`` of a module with the descriptor of its end of a pipe and ``arguments``.

    Returns the process and the other end. It reads no input; ``quiet`` throws away what it prints. Not the start of
    multiprocessing: that imports the main module, which is Spark's worker, or a script.
    """
    ours, theirs = Pipe()
    given = ", ".join(map(str, (theirs.fileno(), *arguments)))
    output = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {module} import serve; serve({given})"],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **(environment or {}),
        },
    )
    theirs.close()
    return process, ours
