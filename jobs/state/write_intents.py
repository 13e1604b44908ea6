"""In flight: the keys that a publish is writing to the index and has not yet put into the ledger.

A run may die between the two. The ledger then knows nothing of what the index took, and once the source has changed
back no plan would name those keys again: a ghost would stay, or an old text. So a publish notes its shard, and whoever
holds the lease next takes the hashes from the ledger's rows of it: they are written again, or deleted.
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
    """Note the ledger's rows of a shard while the block writes it; the note stays where the block does not end well.

    ``rows`` as ``State.merge`` takes them.
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
        # Again: if the lease was lost, its next holder has read the note before the index took what we wrote.
        replace_file(file, sink.getvalue())
        raise
    file.unlink(missing_ok=True)


def recover_write_intents(state: State) -> None:
    """Doubt what was in flight when a run died. Call it only while holding the lease."""
    for file in sorted((state.root / "work").glob(f"*{_SUFFIX}")):
        state.merge("published", pq.read_table(file, partitioning=None), only=_HASHES)
        file.unlink()
