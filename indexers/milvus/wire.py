"""What goes over the wire to Milvus: rows cut into requests and encoded by column.

pymilvus takes rows as dicts and encodes them value by value: with 384 dimensions that was half of the time of an
upsert into Milvus Lite, and more than a server needs to take the rows. A column at a time costs a twentieth of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymilvus import DataType

from indexers.milvus.compat import milvus_pb2, schema_pb2
from indexers.milvus.limits import MAX_BYTES

# More rows in a request gained nothing, on Milvus Lite or on a server (384 dimensions, 2 cores).
UPSERT_ROWS = 1_000
# A server takes requests of 64 MiB unless it is set up otherwise; managed ones take less.
UPSERT_BYTES = 8 << 20


def batches(table: pa.Table, dim: int) -> Iterator[tuple[int, int]]:
    """Cut rows into slices of at most UPSERT_ROWS and UPSERT_BYTES; yields (start, length)."""
    sizes = np.full(len(table), 4 * dim + 8 * 4, dtype=np.int64)
    for name in MAX_BYTES.keys() & set(table.column_names):
        column = table[name]
        if pa.types.is_list(column.type):
            lengths = pc.binary_length(pc.list_flatten(column)).to_numpy()
            np.add.at(sizes, pc.list_parent_indices(column).to_numpy(), lengths)
        else:
            sizes += pc.binary_length(column).to_numpy()
    ends = np.cumsum(sizes)
    start = 0
    while start < len(table):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + UPSERT_BYTES, side="right"))
        end = min(max(fitting, start + 1), start + UPSERT_ROWS, len(table))
        yield start, end - start
        start = end


def encode(rows: pa.Table, vectors: np.ndarray) -> list[schema_pb2.FieldData]:
    """Columns of INDEX_ROW as Milvus takes them; ``vectors`` (rows, dim) of float32 or float16 go in as they are."""
    fields = [_scalars(name, rows[name]) for name in rows.column_names if name != "vector"]
    field = schema_pb2.FieldData(field_name="vector")
    field.vectors.dim = vectors.shape[1]
    content = np.ascontiguousarray(vectors).astype(vectors.dtype.newbyteorder("<"), copy=False).tobytes()
    if vectors.dtype == np.float16:
        field.type = DataType.FLOAT16_VECTOR
        field.vectors.float16_vector = content
    else:
        field.type = DataType.FLOAT_VECTOR
        # The same message as `data.extend(floats)`, without making a Python object of each number: field 1, packed.
        field.vectors.float_vector.MergeFromString(b"\x0a" + _varint(len(content)) + content)
    return [*fields, field]


def upsert_request(version: str, fields: list[schema_pb2.FieldData], rows: int) -> milvus_pb2.UpsertRequest:
    """A request to insert or replace rows by key."""
    return milvus_pb2.UpsertRequest(collection_name=version, fields_data=fields, num_rows=rows)


def insert_request(version: str, fields: list[schema_pb2.FieldData], rows: int) -> milvus_pb2.InsertRequest:
    """A request to insert rows."""
    return milvus_pb2.InsertRequest(collection_name=version, fields_data=fields, num_rows=rows)


def _scalars(name: str, column: pa.ChunkedArray) -> schema_pb2.FieldData:
    field = schema_pb2.FieldData(field_name=name)
    if pa.types.is_string(column.type):
        field.type = DataType.VARCHAR
        field.scalars.string_data.data.extend(column.to_pylist())
    elif pa.types.is_list(column.type):
        field.type, field.scalars.array_data.element_type = DataType.ARRAY, DataType.VARCHAR
        for values in column.to_pylist():
            field.scalars.array_data.data.add().string_data.data.extend(values)
    elif pa.types.is_boolean(column.type):
        field.type = DataType.BOOL
        field.scalars.bool_data.data.extend(column.to_pylist())
    elif pa.types.is_int32(column.type):
        field.type = DataType.INT32
        field.scalars.int_data.data.extend(column.to_pylist())
    else:
        field.type = DataType.INT64
        field.scalars.long_data.data.extend(column.to_pylist())
    return field


def _varint(number: int) -> bytes:
    """Protobuf's way to write a length: seven bits a byte, the last without the high bit."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
