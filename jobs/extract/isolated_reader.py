"""Reads each partition in a subprocess with CPU and memory limits, so that a bad file cannot fail the task.

Each executor process keeps one such process for all its partitions, which costs a file half a millisecond. One
that goes past a limit or crashes ends it; the partition goes to quarantine and the next one gets a new process.

A bound on accidents and bombs, not a sandbox against an attacker who runs code of his own through a parser.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection

from embedding.errors import ResourceError
from embedding.records import Record, Rejected
from jobs.child_process import start_serving
from jobs.sources.base import Partition, ReadLimits, Source

_BATCH = 500  # records of one message
_START_SECONDS = 120.0  # to import the parsers, on a machine that has much else to do
_CLOCK = 4  # a busy machine, or a slow disk, may take so many times the processor's time
_NO_MEMORY = 77  # exit code


# -- in the executor ---------------------------------------------------------------------------------------------------


class Reader:
    """The process that reads for this one, as the executor sees it. Started on first use; dies with this process."""

    def __init__(self, limits: ReadLimits) -> None:
        self.limits = limits
        self.peak_bytes = 0  # the most memory that a partition took which was read to its end
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._greeted = False
        self._told: Source | None = None

    def start(self) -> None:
        """Begin to start the process, which takes most of a second; reading waits for it."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.close()  # killed while it waited: no partition's fault
        # Quiet: a parser's complaint may quote the document.
        self._process, self._pipe = start_serving(__name__, self.limits.memory_mb << 20, quiet=True)
        self._greeted, self._told = False, None

    def close(self) -> int:
        """End the process and return its exit code."""
        if self._process is None or self._pipe is None:
            return 0
        self._pipe.close()
        self._process.kill()  # changes nothing for one that has ended
        code = self._process.wait()
        self._process = self._pipe = None
        return code

    def read(self, source: Source, partition: Partition) -> Iterator[Record]:
        """What ``source.read`` yields; where a limit is met, a last record that says which."""
        fault: tuple[str, str, bool] | None = ("", "", False)
        try:
            pipe = self._ready()
            left = self.limits.seconds * _CLOCK
            pipe.send((None if source is self._told else source, partition, self.limits.seconds))
            self._told = source
            more = True
            while more:
                asked = time.monotonic()
                if not pipe.poll(max(0.0, left)):
                    clock = f"{self.limits.seconds * _CLOCK:g} seconds on the clock"
                    fault = ("timeout", clock, True)  # the machine's fault, as likely as not
                    break
                records, more, peak, ends = pipe.recv()
                left -= time.monotonic() - asked
                yield from records
            else:
                fault = None
                self.peak_bytes = max(self.peak_bytes, peak)
                if ends:
                    self.close()
        except (EOFError, ConnectionError):
            self._await_end()
            fault = self._why(self.close())
        finally:
            if fault is not None:  # also where the caller left off: what is still in the pipe is of this partition
                self.close()
        if fault is not None:
            reason, detail, retry = fault
            yield Rejected("", reason, detail, partition.channel_id or "", partition.first, retry=retry, whole=True)

    def _ready(self) -> Connection:
        self.start()
        assert self._pipe is not None and self._process is not None
        if not self._greeted:
            try:
                if not self._pipe.poll(_START_SECONDS):
                    raise EOFError
                self._pipe.recv()
            except (EOFError, ConnectionError):
                raise ResourceError(
                    f"the process that parses files does not start (exit code {self.close()}); "
                    f"limits.parse_memory_mb is {self.limits.memory_mb}"
                ) from None
            self._greeted = True
        return self._pipe

    def _await_end(self) -> None:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):  # one that closed its end and lives on is killed by close
            self._process.wait(10)

    def _why(self, code: int) -> tuple[str, str, bool]:
        if code == -signal.SIGXCPU:
            return "timeout", f"{self.limits.seconds:g} seconds of processor time", False
        if code == _NO_MEMORY:
            return "out_of_memory", f"{self.limits.memory_mb} MB", False
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return "crashed", name, code == -signal.SIGKILL  # killed from outside, perhaps by the kernel for memory


_reader: Reader | None = None


def reader_of(limits: ReadLimits) -> Reader:
    """The reader of this process."""
    global _reader
    if _reader is None or _reader.limits != limits:
        if _reader is not None:
            _reader.close()
        _reader = Reader(limits)
    return _reader


# -- in the process of its own -----------------------------------------------------------------------------------------


def serve(descriptor: int, memory: int) -> None:
    """Read partitions until the other end closes. Each answer: records, more to come, peak memory, ends now."""
    import jobs.sources.slack_export  # noqa: F401

    pipe = Connection(descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a parser has nothing to write
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    source: Source | None = None
    try:
        pipe.send("ready")
        while True:
            new, partition, seconds = pipe.recv()
            source = new or source
            assert source is not None
            _limit_time(seconds)
            records = source.read(partition)
            while True:
                batch = list(islice(records, _BATCH))
                more = len(batch) == _BATCH
                peak = _peak_bytes()
                ends = not more and peak > memory // 2  # what a large file left behind is not the next one's fault
                pipe.send((batch, more, peak, ends))
                if not more:
                    break
            if ends:
                return
    except MemoryError:
        os._exit(_NO_MEMORY)
    except (EOFError, ConnectionError):
        os._exit(0)  # the task has ended


def _limit_time(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _peak_bytes() -> int:
    """Peak memory of this process in bytes. Only Linux reports it without that of the process that forked it."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
