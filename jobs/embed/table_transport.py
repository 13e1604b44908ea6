"""Tables on their way between Ray's operators, each as the value of one row.

Ray cuts what an operator returns at the size of a block, and never inside a row: a table that is a value arrives whole,
however wide its vectors are.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa


def in_a_row(table: pa.Table, **columns: object) -> pa.Table:
    """A table as the value ``rows`` (large_binary, an Arrow stream) of a single row, beside further ``columns``."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    value = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), 1, [None, pa.array([0, sink.tell()], pa.int64()).buffers()[1], sink.getvalue()]
    )
    return pa.table({**{name: [given] for name, given in columns.items()}, "rows": value})


def out_of_a_row(row: pa.Table) -> pa.Table:
    """The table that ``in_a_row`` put into the column ``rows`` of a row."""
    return pa.ipc.open_stream(row["rows"][0].as_buffer()).read_all()


def one_by_one(batch: pa.Table, work: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Apply ``work``, which maps one row to one row, to each row of a batch. Columns are those of ``work``."""
    return pa.concat_tables([work(batch.slice(row, 1)) for row in range(len(batch))])
