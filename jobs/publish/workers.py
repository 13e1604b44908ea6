"""Has rows written into a server's index by workers of Ray, some at once: the driver only commits the ledger.

A worker that is killed is begun anew by Ray, and writes the same rows again. One that outlives its driver asks for the
lease around each write, as this process does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from embedding.errors import EmbedmillError
from indexers import IndexAddress
from jobs.publish.row_writer import PlannedRows, RowWriter, WrittenRows
from jobs.telemetry.error_reporting import fault_from_bytes, fault_to_bytes, without_messages

if TYPE_CHECKING:
    from indexers.base import Index

_LEAST = 2  # at once: one writes while another one reads


class PublishWorkers:
    """Implements ``Writers`` by tasks of the Ray that ``start`` starts when rows are offered.

    ``most`` is how many requests the index gains by: as many tasks are under way, each with one request after another,
    but no more than there is a core for, as writing takes one half of the time that a request takes.
    """

    def __init__(self, start: Callable[[], object], address: IndexAddress, writer: RowWriter, most: int) -> None:
        self._start, self._address, self._writer, self._most = start, address, writer, most
        self._task: Any = None
        self._under_way: deque[Any] = deque()

    def offer(self, planned: PlannedRows) -> Iterator[WrittenRows]:
        """See ``Writers``."""
        if self._task is None:
            self._begin()
        while len(self._under_way) >= self._most:
            yield from self._first()
        self._under_way.append(self._task.remote(self._address, self._writer, planned))

    def rest(self) -> Iterator[WrittenRows]:
        """See ``Writers``."""
        while self._under_way:
            yield from self._first()

    def close(self) -> None:
        """See ``Writers``. What is under way is waited for, and not committed."""
        if self._under_way:
            import ray

            ray.wait([*self._under_way], num_returns=len(self._under_way), fetch_local=False)
            self._under_way.clear()

    def _begin(self) -> None:
        import ray

        self._start()
        most = max(_LEAST, min(self._most, int(ray.cluster_resources().get("CPU", 1.0))))
        # Each of them sends its requests one after another where there are several.
        settings = replace(self._address.settings, writers=max(1, self._most // most))
        self._address, self._most = replace(self._address, settings=settings), most
        # No logical core: all of them may belong to what encodes.
        self._task = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(write_rows)

    def _first(self) -> list[WrittenRows]:
        import ray

        written, fault = ray.get(self._under_way.popleft())
        if fault:
            raise fault_from_bytes(fault)
        return list(written)


@without_messages()
def write_rows(address: IndexAddress, writer: RowWriter, planned: PlannedRows) -> tuple[list[WrittenRows], bytes]:
    """In a worker: write rows; returns what was written, and a pickled EmbedmillError where that failed."""
    try:
        return list(writer.write(_index(address), planned)), b""
    except EmbedmillError as error:
        return [], fault_to_bytes(error)


@lru_cache(maxsize=1)
def _index(address: IndexAddress) -> Index:
    """The index, opened once a process."""
    return address.open()
