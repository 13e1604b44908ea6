"""Processes that read for an engine without workers: all tasks once, errors as they are, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from embedding.errors import EmbedmillError, ResourceError, SourceError
from jobs.state.reading_processes import Read, _dealt, read_in_processes
from tests.support.paths import ROOT

ROW = pa.schema([("name", pa.string()), ("pid", pa.int64())])


def _tasks(*sizes: int) -> pa.Table:
    return pa.table({"name": [f"task {n}" for n in range(len(sizes))], "size": pa.array(sizes, pa.int64())})


def _names(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.record_batch([batch["name"], pa.array([os.getpid()] * len(batch), pa.int64())], schema=ROW)


def _fails(error: Callable[[], BaseException], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in _names(batches):
        if "task 1" in batch["name"].to_pylist():
            raise error()
        yield batch


def _ends(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        os.kill(os.getpid(), signal.SIGKILL)
        yield batch


def _hangs(file: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in _names(batches):
        with file.open("a") as begun:
            begun.write("x")
        time.sleep(600)
        yield batch


def _source_error() -> SourceError:
    return SourceError("table source: no such file")


def _full() -> OSError:
    return OSError(28, "No space left on device")


def _quotes() -> ValueError:
    return ValueError("what the document says")


def _read(folder: Path, read: Read, *sizes: int) -> pa.Table:
    read_in_processes(_tasks(*sizes), read, ROW, folder, processes=2)
    return ds.dataset(str(folder), schema=ROW, format="parquet").to_table()


def test_every_task_is_read_once_by_one_of_the_processes(tmp_path: Path) -> None:
    found = _read(tmp_path, _names, *range(20))
    assert sorted(found["name"].to_pylist()) == sorted(f"task {n}" for n in range(20))
    assert len({*found["pid"].to_pylist()}) == 2 and os.getpid() not in found["pid"].to_pylist()


def test_shares_weigh_the_same_as_far_as_tasks_allow() -> None:
    for sizes, wanted in (((7, 5, 4, 3, 1), [[7, 3], [5, 4, 1]]), ((9, 1, 1), [[9], [1, 1]]), ((3,), [[3]])):
        assert [share["size"].to_pylist() for share in _dealt(_tasks(*sizes), 2)] == wanted
    assert [len(share) for share in _dealt(_tasks(*[0] * 10), 2)] == [5, 5]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (_source_error, SourceError, "table source: no such file"),
        (_full, OSError, "No space left on device"),
        (_quotes, EmbedmillError, "unexpected ValueError at "),
    ],
    ids=["of ours", "of the system", "that may quote"],
)
def test_an_error_arrives_with_its_class(
    tmp_path: Path, error: Callable[[], BaseException], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as raised:
        _read(tmp_path, partial(_fails, error), 1, 1, 1)
    assert type(raised.value) is kind and "document" not in str(raised.value)


def test_a_process_that_is_killed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"a process of this run was killed \(exit code -9\), .*run again"):
        _read(tmp_path, _ends, 1, 1)


@contextmanager
def _caller(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A process of its own that waits for two that hang, and those."""
    begun = folder / "begun"
    script = f"from {__name__} import hang; from pathlib import Path; hang(Path({str(folder)!r}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            while not begun.exists() or begun.read_text() != "xx":
                assert process.poll() is None
                time.sleep(0.05)
            readers = psutil.Process(process.pid).children()
            assert len(readers) == 2
            yield process, readers
        finally:
            process.kill()


def hang(folder: Path) -> None:
    """In that process: read until something ends it."""
    read_in_processes(_tasks(1, 1), partial(_hangs, folder / "begun"), ROW, folder, processes=2)


def test_nothing_runs_on_after_the_caller_was_interrupted(tmp_path: Path) -> None:
    with _caller(tmp_path) as (process, readers):
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT, "as Python ends by a KeyboardInterrupt"
        assert not any(reader.is_running() for reader in readers), "it has waited for them"


def test_processes_end_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    with _caller(tmp_path) as (process, readers):
        process.kill()
        _, alive = psutil.wait_procs(readers, timeout=10)
        assert not alive
