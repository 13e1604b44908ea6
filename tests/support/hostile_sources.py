"""Sources whose reading does what a broken parser may do. In a module of its own: the parser process imports it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping

from embedding.records import Document, Kind, Rejected, Skipped
from jobs.sources.base import Listing, Partition, ReadLimits


class Misbehaving:
    """Does what the partition's path says, after the records that it says."""

    kind: Kind = "file"
    source_id = "misbehaving"
    team_id: str | None = "T01"
    reader = "1"
    names: Mapping[str, str] = {}

    def __init__(self, limits: ReadLimits) -> None:
        self.limits = limits

    def listing(self) -> Listing:
        return Listing(())

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        return self.limits

    def read(self, partition: Partition) -> Iterator[Document | Rejected | Skipped]:
        yield from (Skipped("said") for _ in range(partition.size))
        match partition.path:
            case "spin":
                while True:
                    pass
            case "sleep":
                time.sleep(3600)
            case "hoard":
                held = []
                while True:
                    held.append(bytearray(10_000_000))
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "raise":
                raise RuntimeError("a text that must not be repeated")
            case "write":
                with open("/tmp/embedmill-written-by-a-parser", "w") as file:
                    file.write("a temporary file")
