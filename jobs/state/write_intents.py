"""Write intents: the keys that a publish is writing to the index and has not yet put into the ledger.

A run may be killed between the two. The index then holds rows that the ledger does not, and once the source has changed
back no plan would name those keys: a ghost row or an old text would stay. So a publish records its shard first, and the
next holder of the lease clears the hashes of those rows in the ledger: they are written again, or deleted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from embedding.atomic_file import replace_file

if TYPE_CHECKING:
    from jobs.state.store import State

_HASHES = ("content_hash", "meta_hash")
_SUFFIX = ".inflight"


@contextmanager
def record_intent(state: State, run_id: str, rows: pa.Table) -> Iterator[None]:
    """Record the ledger's rows of a shard while the block writes it; the record stays where the block raises.

    ``rows`` are those of ``published`` with ``_delete``, as ``State.merge`` takes them.
    """
    for name in _HASHES:
        rows = rows.set_column(rows.column_names.index(name), name, pa.array([""] * len(rows), pa.string()))
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    file = state.root / "work" / f"{run_id}{_SUFFIX}"
    replace_file(file, sink.getvalue())
    try:
        yield
    except BaseException:
        # Again: if the lease was lost, its next holder has read the record before the index took what we wrote.
        replace_file(file, sink.getvalue())
        raise
    file.unlink(missing_ok=True)


def recover_write_intents(state: State) -> None:
    """Clear the hashes of the rows that a killed run was writing, so that the next plan names them. Needs the lease."""
    for file in sorted((state.root / "work").glob(f"*{_SUFFIX}")):
        state.merge("published", pq.read_table(file, partitioning=None), only=_HASHES)
        file.unlink()
