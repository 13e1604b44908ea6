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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.command_line import invoke

# What takes the place of the console script. Arguments: the socket, then the command's own. Where there is no socket, and
# for words that it was made for, it becomes the console script.
CLIENT = """
import json, os, socket, sys
command = REAL
if not os.path.exists(sys.argv[1]) or any(word in sys.argv for word in OWN):
    os.execv(command, [command, *sys.argv[2:]])
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
    """Stands in for the console script in processes that are given ``command``, while it is ``listening``.

    Before and after, and with one of the words ``own`` among its arguments, it is the console script itself.
    """

    def __init__(self, own: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="embedmill-")  # the path of a socket has 107 bytes
        self._file, client = Path(self._folder.name, "socket"), Path(self._folder.name, "client.py")
        client.write_text(
            CLIENT.replace("REAL", repr(str(Path(sys.executable).with_name("embedmill")))).replace("OWN", repr(own))
        )
        self.command = shlex.join([sys.executable, str(client), str(self._file)])

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it commands wait for ``answer``."""
        with socket.socket(socket.AF_UNIX) as self._listener:
            self._listener.bind(str(self._file))
            self._listener.listen()
            self._listener.settimeout(0.1)
            yield
        self._file.unlink()

    def serve(self, process: subprocess.Popen[str], seconds: float) -> int:
        """Answer commands, one at a time, until a process has ended, which has ``seconds``; returns how many."""
        answered, deadline = 0, time.monotonic() + seconds
        with self.listening():
            while process.poll() is None:
                assert time.monotonic() < deadline, f"{process.args!r} has not ended after {seconds:.0f} s"
                answered += self.answer()
        return answered

    def answer(self) -> bool:
        """Carry out a command that waits; False where none comes within 0.1 s."""
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return False
        with connection:
            connection.settimeout(None)
            asked = json.load(connection.makefile())
            ran = invoke(asked["arguments"], asked["environment"])
            answer = {"code": ran.exit_code, "stdout": ran.stdout, "stderr": ran.stderr}
            connection.sendall(json.dumps(answer).encode())
        return True

    def close(self) -> None:
        """Remove its files."""
        self._folder.cleanup()
