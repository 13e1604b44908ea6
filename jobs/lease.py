"""One writer on a state at a time: a lease with a holder, a heartbeat and an expiry.

The lease is a small JSON file; reading and changing it happens under an operating-system lock. A holder on this
machine whose process is gone has lost the lease at once, one on another machine when its heartbeat expires.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

import psutil
from filelock import FileLock

from embedding.errors import LeaseHeldError

_FRESH_SECONDS = 5.0  # who waits says so every second; an older sign is of a run that was killed


class Lease:
    """Context manager that holds the lease of a state folder while its block runs.

    Raises LeaseHeldError when another run holds it and does not give it up within ``wait`` seconds.
    """

    def __init__(self, root: Path, *, run_id: str, seconds: int, wait: float = 0.0) -> None:
        self._file = root / "lease.json"
        self._lock = FileLock(root / ".lease.lock", timeout=10)
        self._seconds = seconds
        self._wait = wait
        self._token = uuid.uuid4().hex
        self._waiting = root / f".lease.waiting.{self._token}"
        self._run_id = run_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        try:
            return self._acquire()
        finally:
            self._waiting.unlink(missing_ok=True)

    def _acquire(self) -> Lease:
        deadline = time.monotonic() + self._wait
        while (other := self._try()) is not None:
            if time.monotonic() >= deadline:
                raise LeaseHeldError(
                    f"run {other['run_id']} (process {other['pid']} on {other['host']}) is writing to this state; "
                    "wait for it, or give --wait SECONDS"
                )
            self._waiting.touch()
            time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))
        self._thread.start()
        return self

    def wanted(self) -> bool:
        """Whether another run waits for this lease now."""
        return any(_fresh(file) for file in self._file.parent.glob(".lease.waiting.*"))

    def give_way(self) -> None:
        """After the block: let a run that waits have the lease first."""
        until = time.monotonic() + _FRESH_SECONDS
        while self._read() is None and self.wanted() and time.monotonic() < until:
            time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            if self._mine():
                self._file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise LeaseHeldError if the lease was lost. Call before each commit."""
        if not self._mine():
            raise LeaseHeldError("the lease on this state was lost to another run; run again")

    def _read(self) -> dict[str, object] | None:
        try:
            return dict(json.loads(self._file.read_text()))
        except (FileNotFoundError, ValueError):
            return None

    def _mine(self) -> bool:
        held = self._read()
        return held is not None and held["token"] == self._token

    def _write(self) -> None:
        me = psutil.Process()
        body = {
            "token": self._token, "run_id": self._run_id, "host": socket.gethostname(), "pid": me.pid,
            "process_started": me.create_time(), "expires": time.time() + self._seconds,
        }  # fmt: skip
        temporary = self._file.with_suffix(f".{self._token}")
        temporary.write_text(json.dumps(body))
        os.replace(temporary, self._file)

    def _try(self) -> dict[str, object] | None:
        with self._lock:
            held = self._read()
            if held is not None and _alive(held):
                return held
            self._write()
            return None

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            with self._lock:
                if not self._mine():
                    return
                self._write()


def _fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < _FRESH_SECONDS
    except FileNotFoundError:
        return False


def _alive(held: dict[str, object]) -> bool:
    if held["host"] == socket.gethostname():
        try:
            process = psutil.Process(int(str(held["pid"])))
            return abs(process.create_time() - float(str(held["process_started"]))) < 2
        except psutil.NoSuchProcess:
            return False
    return time.time() < float(str(held["expires"]))
