"""Write intents: rows of the ledger that a publish is writing to the index and has not yet committed.

A run may be killed between the two. The index then holds rows that the ledger does not, and once the source has changed
back no plan would name those keys: a ghost row or an old text would stay. So what writes rows to the index, here or in
a worker, records them first as the ledger will have them, and the driver commits the record. The next holder of the
lease takes records that were left, and clears their hashes in the ledger: the rows are written again, or deleted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.state.parts import write_part
from jobs.state.storage import StatePath, read_parquet, replace_file
from jobs.state.tables import TABLES

if TYPE_CHECKING:
    from jobs.state.store import State

_HASHES = ("content_hash", "meta_hash")
_SUFFIX = ".inflight"

# Rows of ``published`` with ``_delete``, as ``State.merge`` takes them, and ``held``: whether the ledger has the row.
INTENT = TABLES["published"].changes.append(pa.field("held", pa.bool_()))


@contextmanager
def record_intent(root: StatePath, name: str, rows: pa.Table) -> Iterator[StatePath]:
    """Record rows (INTENT) while the block writes them to the index; yields the record, to be committed after it.

    ``root`` is the state's folder; ``name`` differs from those of other records of the run, and begins with its id.
    """
    sink = io.BytesIO()
    pq.write_table(rows.select(INTENT.names).cast(INTENT), sink)
    file = root / "work" / f"{name}{_SUFFIX}"
    replace_file(file, sink.getvalue())
    try:
        yield file
    except BaseException:
        # Again: if the lease was lost, its next holder has read the record before the index took what we wrote.
        replace_file(file, sink.getvalue())
        raise


def commit_intent(state: State, file: StatePath) -> None:
    """Bring the ledger up to date with rows that the index has taken. Those that it has not are appended."""
    rows = read_parquet(file)
    new = pc.invert(pc.or_kleene(rows["held"], rows["_delete"]))
    if added := rows.filter(new):
        seq = state.next_seq("published")
        state.append("published", write_part(state.root, "published", added, seq=seq))
    if len(added) < len(rows):
        state.merge("published", rows.filter(pc.invert(new)).drop_columns(["held"]))
    file.unlink(missing_ok=True)


def recover_write_intents(state: State) -> None:
    """Clear the hashes of the rows that a killed run was writing, so that the next plan names them. Needs the lease."""
    work = state.root / "work"
    found: list[StatePath] = [*work.glob(f"*{_SUFFIX}")]
    for file in sorted(found, key=str):
        rows = read_parquet(file, TABLES["published"].changes.names)
        for name in _HASHES:
            rows = rows.set_column(rows.column_names.index(name), name, pa.array([""] * len(rows), pa.string()))
        state.merge("published", rows, only=_HASHES)
        file.unlink()
