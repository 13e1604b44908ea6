"""One writer on a state at a time: a lease with a holder, a heartbeat and an expiry.

The lease is a small JSON file; reading and changing it happens under an operating-system lock. A holder on this
machine whose process is gone has lost the lease at once, any other when its heartbeat expires. A paused holder can lose
the lease without noticing; the fencing token, its ``number``, makes its later commits fail (``fencing``).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from filelock import FileLock, Timeout

from embedding.atomic_file import replace_file
from embedding.errors import LeaseHeldError
from jobs.state.fencing import LOST

_FRESH_SECONDS = 5.0  # who waits says so every second; an older sign is of a run that was killed

_Held = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeaseProof:
    """Tells whether a lease is still held, by its ``token`` in the state's ``file``; may be sent to a worker."""

    file: Path
    token: str

    def held(self) -> bool:
        """Whether the lease is still its holder's."""
        found = _read(self.file)
        return found is not None and found["token"] == self.token

    def check(self) -> None:
        """Raise LeaseHeldError if the lease was lost. Call before each write that no fence guards."""
        if not self.held():
            raise LeaseHeldError(LOST)


class Lease:
    """Context manager that holds the lease of a state folder while its block runs.

    Raises LeaseHeldError when another run holds it and does not give it up within ``wait`` seconds. ``newest`` tells
    the highest number of a lease that has left a trace. ``took_over`` is set where the holder before may still live.
    """

    def __init__(
        self, root: Path, *, run_id: str, seconds: int, wait: float = 0.0, newest: Callable[[], int] = lambda: 0
    ) -> None:
        self.number = 0
        self.took_over = False
        self._file = root / "lease.json"
        self._lock = FileLock(root / ".lease.lock", timeout=10)
        self._seconds = seconds
        self._wait = wait
        self._newest = newest
        self.proof = LeaseProof(self._file, uuid.uuid4().hex)
        self._waiting = root / f".lease.waiting.{self.proof.token}"
        self._run_id = run_id
        self._seen: tuple[_Held | None, float] = (None, 0.0)
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
        while _read(self._file) is None and self.wanted() and time.monotonic() < until:
            time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            if self.held():
                self._file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise LeaseHeldError if the lease was lost; see ``LeaseProof``."""
        self.proof.check()

    def held(self) -> bool:
        """Whether the lease is still ours."""
        return self.proof.held()

    def _write(self) -> None:
        me = psutil.Process()
        body = {
            "token": self.proof.token,
            "number": self.number,
            "run_id": self._run_id,
            "host": socket.gethostname(),
            "machine": machine_id(),
            "pid": me.pid,
            "process_started": started_at(me),
            "beat": time.monotonic(),
            "seconds": self._seconds,
            "expires": time.time() + self._seconds,
        }
        # A heartbeat must not wait for a busy disk, and no lease outlives a loss of power.
        replace_file(self._file, json.dumps(body).encode(), durable=False)

    def _try(self) -> _Held | None:
        try:
            with self._lock:
                held = _read(self._file)
                if held is not None:
                    gone = is_here(held) and is_gone(held)
                    if not gone and not self._expired(held):
                        return held
                    self.took_over = not gone
                self.number = max(self._newest(), held.get("number", 0) if held else 0) + 1
                self._write()
                return None
        except Timeout:
            raise LeaseHeldError("another run was stopped while it changed the lease; end it or let it go on") from None

    def _expired(self, held: _Held) -> bool:
        """On this machine by its monotonic clock; else by the time of day, which must agree among hosts.

        Where it does not, a lease that has shown no heartbeat for its whole length has expired as well.
        """
        now = time.monotonic()
        if held != self._seen[0]:
            self._seen = (held, now)
        seconds = float(held.get("seconds", self._seconds))
        if is_here(held):
            return now - float(held["beat"]) >= seconds
        return time.time() >= float(held["expires"]) or now - self._seen[1] >= seconds

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            with suppress(OSError, Timeout), self._lock:  # a file system that fails for a moment gets another chance
                if not self.held():
                    return
                self._write()


def holder(root: Path) -> str:
    """The run that holds a state's lease now, "" for none. Locks nothing."""
    try:
        held = json.loads((root / "lease.json").read_text())
        gone = is_here(held) and (is_gone(held) or time.monotonic() - float(held["beat"]) >= float(held["seconds"]))
        return "" if gone or not is_here(held) and time.time() >= float(held["expires"]) else str(held["run_id"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""


def _read(file: Path) -> _Held | None:
    try:
        return dict(json.loads(file.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < _FRESH_SECONDS
    except FileNotFoundError:
        return False


def machine_id() -> str:
    """Where a process id and a monotonic clock mean the same as here: this boot, and this container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def is_here(held: _Held) -> bool:
    """Whether what is held is held on this machine."""
    return held["host"] == socket.gethostname() and held.get("machine") == machine_id()


def started_at(process: psutil.Process) -> float:
    """Seconds from the boot to the start of a process. Its start by the time of day moves when the clock is set."""
    return float(process.create_time() - psutil.boot_time())


def is_gone(held: _Held) -> bool:
    """Whether a process of this machine has ended; a zombie has."""
    try:
        process = psutil.Process(int(held["pid"]))
        another = abs(started_at(process) - float(held["process_started"])) >= 2
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
