"""One writer on a state at a time: a lease with a holder, a heartbeat and an expiry.

A holder on this machine whose process is gone has lost the lease at once, any other when its heartbeat expires. A
paused holder can lose the lease without noticing; the fencing token, its ``number``, makes its later commits fail
(``fencing``). Where the lease is written down is told in ``lease_record``.
"""

from __future__ import annotations

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

import psutil

from embedding.errors import LeaseHeldError, ResourceError
from jobs.state.fencing import LOST
from jobs.state.lease_record import FRESH_SECONDS, Held, LeaseRecord, lease_record
from jobs.state.storage import StatePath


@dataclass(frozen=True, slots=True)
class LeaseProof:
    """Tells whether a lease is still held, by its ``token`` in the state's record; may be sent to a worker."""

    record: LeaseRecord
    token: str

    def held(self) -> bool:
        """Whether the lease is still its holder's."""
        found = self.record.read()
        return found is not None and found["token"] == self.token

    def check(self) -> None:
        """Raise LeaseHeldError if the lease was lost. Call before each write that no fence guards."""
        if not self.held():
            raise LeaseHeldError(LOST)


class Lease:
    """Context manager that holds the lease of a state while its block runs.

    Raises LeaseHeldError when another run holds it and does not give it up within ``wait`` seconds. ``newest`` tells
    the highest number of a lease that has left a trace. ``took_over`` is set where the holder before may still live.
    """

    def __init__(
        self, root: StatePath, *, run_id: str, seconds: int, wait: float = 0.0, newest: Callable[[], int] = lambda: 0
    ) -> None:
        self.number = 0
        self.took_over = False
        self.waited = 0.0  # seconds for another run
        self._record = lease_record(root)
        self._seconds = seconds
        self._wait = wait
        self._newest = newest
        self.proof = LeaseProof(self._record, uuid.uuid4().hex)
        self._run_id = run_id
        self._seen: tuple[Held | None, float] = (None, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        waited = False
        deadline = time.monotonic() + self._wait
        try:
            while (other := self._try()) is not None:
                if time.monotonic() >= deadline:
                    raise LeaseHeldError(
                        f"run {other['run_id']} (process {other['pid']} on {other['host']}) is writing to this state; "
                        "wait for it, or give --wait SECONDS"
                    )
                self._record.wait(self.proof.token)
                waited = True
                time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))
        finally:
            if waited:
                self.waited = time.monotonic() - deadline + self._wait
                self._record.wait_no_more(self.proof.token)
        self._thread.start()
        return self

    def wanted(self) -> bool:
        """Whether another run waits for this lease now."""
        return self._record.waited_for()

    def give_way(self) -> None:
        """After the block: let a run that waits have the lease first."""
        until = time.monotonic() + FRESH_SECONDS
        while self._record.read() is None and self.wanted() and time.monotonic() < until:
            time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        with self._record.changing():
            if self.held():
                self._record.free(self._said())

    def check(self) -> None:
        """Raise LeaseHeldError if the lease was lost; see ``LeaseProof``."""
        self.proof.check()

    def held(self) -> bool:
        """Whether the lease is still ours."""
        return self.proof.held()

    def _said(self) -> Held:
        me = psutil.Process()
        return {
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

    def _try(self) -> Held | None:
        """Take the lease; what another run holds, else."""
        with self._record.changing():
            if (held := self._record.read()) is not None and self._lives(held):
                return held
            # The number before the holder: one that comes in between has the number that would be ours.
            newest = max(self._newest(), self._record.number())
            if (held := self._record.read()) is not None and self._lives(held):
                return held
            took_over = held is not None and not (is_here(held) and is_gone(held))
            self.number = newest + 1
            if self._record.take(self._said()):
                self.took_over = took_over
                return None
        return self._record.read() or self._try()

    def _lives(self, held: Held) -> bool:
        return not (is_here(held) and is_gone(held)) and not self._expired(held)

    def _expired(self, held: Held) -> bool:
        """On this machine by its monotonic clock; else by the clock that its record goes by.

        Where that does not agree, a lease that has shown no heartbeat for its whole length has expired as well.
        """
        now = time.monotonic()
        if held != self._seen[0]:
            self._seen = (held, now)
        seconds = float(held.get("seconds", self._seconds))
        if is_here(held):
            return now - float(held["beat"]) >= seconds
        return self._record.age(held) >= seconds or now - self._seen[1] >= seconds

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            # A file system or a store that fails for a moment gets another chance.
            with suppress(OSError, LeaseHeldError, ResourceError), self._record.changing():
                if not self.held():
                    return
                self._record.keep(self._said())


def holder(root: StatePath) -> str:
    """The run that holds a state's lease now, "" for none. Locks nothing."""
    record = lease_record(root)
    try:
        held = record.read()
        if held is None:
            return ""
        if is_here(held):
            gone = is_gone(held) or time.monotonic() - float(held["beat"]) >= float(held["seconds"])
        else:
            gone = record.age(held) >= float(held["seconds"])
        return "" if gone else str(held["run_id"])
    except KeyError:
        return ""


def machine_id() -> str:
    """Where a process id and a monotonic clock mean the same as here: this boot, and this container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def is_here(held: Held) -> bool:
    """Whether what is held is held on this machine."""
    return held["host"] == socket.gethostname() and held.get("machine") == machine_id()


def started_at(process: psutil.Process) -> float:
    """Seconds from the boot to the start of a process. Its start by the time of day moves when the clock is set."""
    return float(process.create_time() - psutil.boot_time())


def is_gone(held: Held) -> bool:
    """Whether a process of this machine has ended; a zombie has."""
    try:
        process = psutil.Process(int(held["pid"]))
        another = abs(started_at(process) - float(held["process_started"])) >= 2
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
