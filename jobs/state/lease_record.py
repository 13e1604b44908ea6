"""Where a lease is written down: one file that is changed under a lock, or numbered objects that are only created.

An object store has no lock that ends with its holder. There each lease is an object of its own, named by its number:
the newest number is the lease, and it can be created once. So who lost it is told by a higher number, whatever was
written late, and no clocks of hosts are compared.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from filelock import FileLock, Timeout

from embedding.errors import LeaseHeldError
from jobs.state.object_path import ObjectPath
from jobs.state.storage import StatePath, prove, replace_file

Held: TypeAlias = dict[str, Any]  # token, number, run_id, host, machine, pid, process_started, beat, seconds, expires
FRESH_SECONDS = 5.0  # who waits says so every second; an older sign is of a run that was killed
_NUMBER = re.compile(r"(\d{20})\.json")
_KEPT = 16  # objects of earlier leases


class LeaseRecord(Protocol):
    """The record of a state's lease. It may be sent to a worker."""

    def changing(self) -> AbstractContextManager[None]:
        """Within the block no one else of this machine changes a lease in a file."""

    def read(self) -> Held | None:
        """What the lease says; None where it is free."""

    def number(self) -> int:
        """The highest number of a lease that is written down; 0 without one."""

    def take(self, said: Held) -> bool:
        """Write down a lease of a number that none has had; False where another run was faster."""

    def keep(self, said: Held) -> None:
        """Write down a lease that is still held anew."""

    def free(self, said: Held) -> None:
        """Give up a lease that is still held."""

    def age(self, held: Held) -> float:
        """Seconds since a lease was written down last, as far as that can be told without this machine's clock."""

    def wait(self, token: str) -> None:
        """Say that a run waits."""

    def wait_no_more(self, token: str) -> None:
        """Take that back."""

    def waited_for(self) -> bool:
        """Whether a run has said so within FRESH_SECONDS."""


def lease_record(root: StatePath) -> LeaseRecord:
    """The record of the state at ``root``."""
    return ObjectRecord(root) if isinstance(root, ObjectPath) else FileRecord(root)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """``lease.json`` in the state's folder; reading and changing it happens under an operating-system lock."""

    root: Path

    @contextmanager
    def changing(self) -> Iterator[None]:
        """See ``LeaseRecord``. Raises LeaseHeldError where a process was stopped within it."""
        try:
            with FileLock(self.root / ".lease.lock", timeout=10):
                yield
        except Timeout:
            raise LeaseHeldError("another run was stopped while it changed the lease; end it or let it go on") from None

    def read(self) -> Held | None:
        """See ``LeaseRecord``."""
        try:
            return dict(json.loads(self._file.read_text()))
        except (FileNotFoundError, ValueError):
            return None

    def number(self) -> int:
        """See ``LeaseRecord``."""
        held = self.read()
        return int(held.get("number", 0)) if held else 0

    def take(self, said: Held) -> bool:
        """See ``LeaseRecord``. Call it within ``changing``, after ``read``."""
        self.keep(said)
        return True

    def keep(self, said: Held) -> None:
        """See ``LeaseRecord``."""
        # A heartbeat must not wait for a busy disk, and no lease outlives a loss of power.
        replace_file(self._file, json.dumps(said).encode(), durable=False)

    def free(self, said: Held) -> None:
        """See ``LeaseRecord``."""
        self._file.unlink(missing_ok=True)

    def age(self, held: Held) -> float:
        """See ``LeaseRecord``. By the time of day, which must agree among hosts that share a folder."""
        return time.time() - float(held["expires"]) + float(held["seconds"])

    def wait(self, token: str) -> None:
        """See ``LeaseRecord``."""
        self._sign(token).touch()

    def wait_no_more(self, token: str) -> None:
        """See ``LeaseRecord``."""
        self._sign(token).unlink(missing_ok=True)

    def waited_for(self) -> bool:
        """See ``LeaseRecord``."""
        return any(_fresh(file) for file in self.root.glob(".lease.waiting.*"))

    @property
    def _file(self) -> Path:
        return self.root / "lease.json"

    def _sign(self, token: str) -> Path:
        return self.root / f".lease.waiting.{token}"


def _fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < FRESH_SECONDS
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """Objects below ``lease`` in the state's prefix, one for each number; the newest counts."""

    root: ObjectPath

    @contextmanager
    def changing(self) -> Iterator[None]:
        """See ``LeaseRecord``. Nothing is locked: of several that create a number one succeeds."""
        yield

    def read(self) -> Held | None:
        """See ``LeaseRecord``."""
        for _ in range(3):  # it may be replaced and removed between the two requests
            numbers = self._numbers()
            if not numbers:
                return None
            try:
                held = dict(json.loads(self._object(numbers[-1]).read_text()))
            except FileNotFoundError:
                continue
            return None if held.get("free") else held
        return None

    def number(self) -> int:
        """See ``LeaseRecord``."""
        return max(self._numbers(), default=0)

    def take(self, said: Held) -> bool:
        """See ``LeaseRecord``."""
        prove(self.root)
        mine = self._object(said["number"])
        # The answer to an earlier attempt may have been lost: then it is ours.
        if not mine.create(json.dumps(said).encode()) and self._token(mine) != said["token"]:
            return False
        numbers = self._numbers()
        if numbers[-1] != said["number"]:  # so slow that this number had been given up, and removed
            mine.unlink(missing_ok=True)
            return False
        for number in numbers[:-_KEPT]:
            self._object(number).unlink(missing_ok=True)
        return True

    def keep(self, said: Held) -> None:
        """See ``LeaseRecord``. One that was lost meanwhile is not the newest, whatever is written to it."""
        self._object(said["number"]).write_bytes(json.dumps(said).encode())

    def free(self, said: Held) -> None:
        """See ``LeaseRecord``. The object stays, for its number."""
        self.keep({**said, "free": True})

    def age(self, held: Held) -> float:
        """See ``LeaseRecord``. By the store's clock."""
        try:
            return self._now() - self._object(int(held["number"])).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def wait(self, token: str) -> None:
        """See ``LeaseRecord``."""
        self._sign(token).write_bytes(b"")

    def wait_no_more(self, token: str) -> None:
        """See ``LeaseRecord``."""
        self._sign(token).unlink(missing_ok=True)

    def waited_for(self) -> bool:
        """See ``LeaseRecord``."""
        signs = list((self.root / "lease" / "waiting").iterdir())
        if not signs:
            return False
        now = self._now()
        for sign in signs:
            try:
                if now - sign.stat().st_mtime < FRESH_SECONDS:
                    return True
            except FileNotFoundError:
                continue
        return False

    def _numbers(self) -> list[int]:
        found = (_NUMBER.fullmatch(file.name) for file in (self.root / "lease").iterdir())
        return sorted(int(number[1]) for number in found if number)

    def _object(self, number: int) -> ObjectPath:
        return self.root / "lease" / f"{number:020}.json"

    def _token(self, file: ObjectPath) -> str:
        try:
            return str(json.loads(file.read_text())["token"])
        except FileNotFoundError:
            return ""

    def _sign(self, token: str) -> ObjectPath:
        return self.root / "lease" / "waiting" / token

    def _now(self) -> float:
        """The time by the store's clock."""
        probe = self.root / "lease" / "clock" / uuid.uuid4().hex
        probe.write_bytes(b"")
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
