"""The command line for a program that starts it often: answered by this process, whose engines run already.

A command of its own process starts Spark, and some start Ray: half a minute of a core, for work of a second.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.command_line import invoke

# What takes the place of the console script. Arguments: the socket, then the command's own.
CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    given = {name: value for name, value in os.environ.items() if name.startswith("EMBEDMILL")}
    server.sendall(json.dumps({"arguments": sys.argv[2:], "environment": given}).encode())
    server.shutdown(socket.SHUT_WR)
    answer = json.load(server.makefile())
sys.stderr.write(answer["stderr"])
sys.stdout.write(answer["stdout"])
sys.exit(answer["code"])
"""


class WarmCommand:
    """Stands in for the console script in processes that are given ``command``, while ``serve`` runs here."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="embedmill-")  # the path of a socket has 107 bytes
        file, client = Path(self._folder.name, "socket"), Path(self._folder.name, "client.py")
        client.write_text(CLIENT)
        self.command = shlex.join([sys.executable, str(client), str(file)])
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(file))
        self._listener.listen()
        self._listener.settimeout(0.1)

    def serve(self, process: subprocess.Popen[str], seconds: float) -> int:
        """Answer commands, one at a time, until a process has ended, which has ``seconds``; returns how many."""
        answered, deadline = 0, time.monotonic() + seconds
        while process.poll() is None:
            assert time.monotonic() < deadline, f"{process.args!r} has not ended after {seconds:.0f} s"
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(None)
                asked = json.load(connection.makefile())
                ran = invoke(asked["arguments"], asked["environment"])
                answer = {"code": ran.exit_code, "stdout": ran.stdout, "stderr": ran.stderr}
                connection.sendall(json.dumps(answer).encode())
            answered += 1
        return answered

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        self._listener.close()
        self._folder.cleanup()
