"""Processes that run a function over tasks on all cores of this machine, for an engine that has none of its own.

Each takes a share of the tasks and writes one file. Nothing of them is left when the caller ends, however it does.
"""

from __future__ import annotations

import heapq
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from embedding.errors import ResourceError
from jobs.child_process import start_serving
from jobs.state.staging import write_staged
from jobs.state.storage import StatePath
from jobs.telemetry.error_reporting import fault_from_bytes, fault_to_bytes, without_messages

Read: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_ROWS = 4096  # of a batch


@dataclass(frozen=True, slots=True)
class _Share:
    """What one process does. ``read`` can be pickled."""

    tasks: pa.Table
    read: Read
    schema: pa.Schema
    folder: StatePath


def read_in_processes(tasks: pa.Table, read: Read, schema: pa.Schema, folder: StatePath, *, processes: int) -> None:
    """Stage what ``read`` makes of tasks in ``folder``, all but its list; the column ``size`` says how heavy each is.

    Raises what ``read`` raised, and ResourceError where a process is killed.
    """
    with ExitStack() as ends:
        shares = _dealt(tasks, processes)
        started = [ends.enter_context(_Process(_Share(share, read, schema, folder))) for share in shares]
        for process in started:
            process.wait()


def over_files(function: Read) -> Read:
    """A function over batches as one over files of them (path), each by itself. It can be pickled if that one can."""
    return partial(_over_files, function)


def _over_files(function: Read, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for path in batch["path"].to_pylist():
            yield from function(pq.ParquetFile(path).iter_batches(_ROWS))


def _dealt(tasks: pa.Table, processes: int) -> list[pa.Table]:
    """Shares of the tasks of about the same size: each task goes where there is least, the heavy ones first."""
    sizes = tasks["size"].to_pylist()
    rows: list[list[int]] = [[] for _ in range(min(processes, len(tasks)))]
    least = [(0, number) for number in range(len(rows))]
    for row in sorted(range(len(tasks)), key=lambda row: -sizes[row]):
        held, number = heapq.heappop(least)
        rows[number].append(row)
        heapq.heappush(least, (held + sizes[row] + 1, number))
    return [tasks.take(share) for share in rows]


class _Process:
    """One of the processes, as this one sees it."""

    def __init__(self, share: _Share) -> None:
        self._process, self._pipe = start_serving(__name__, environment={"TOKENIZERS_PARALLELISM": "false"})
        with suppress(ConnectionError):  # one that has ended already is found when it is waited for
            self._pipe.send(share)

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.kill()  # changes nothing for one that has ended
        self._process.wait()

    def wait(self) -> None:
        """Wait until its file is written. Raises what reading raised."""
        try:
            fault = self._pipe.recv()
        except (EOFError, ConnectionError):
            code = self._process.wait()
            raise ResourceError(
                f"a process of this run was killed (exit code {code}), perhaps for want of memory; run again"
            ) from None
        if fault:
            raise fault_from_bytes(fault)


def serve(descriptor: int) -> None:
    """In the process: take a share, write its file, and answer with an error as bytes, or none."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe = Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        share = pipe.recv()
        threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
        fault = b""
        try:
            with without_messages():
                for _ in write_staged(share.read(iter(share.tasks.to_batches(1))), share.folder, share.schema):
                    pass
        except Exception as error:
            fault = fault_to_bytes(error)
        pipe.send(fault)


def _end_with(pipe: Connection) -> None:
    """End this process when the other one has ended, whatever this one is busy with."""
    with suppress(EOFError, ConnectionError):
        pipe.recv()
    os._exit(1)
