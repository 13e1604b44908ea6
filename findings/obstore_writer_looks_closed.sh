#!/usr/bin/env bash
# Versions: obstore 0.12.1 and pyarrow 26.0.1.
# Behaviour: `obstore.open_writer` gives an object that is written like a file, and pyarrow writes to any file of Python's.
#   The two do not meet: `closed` of the writer is a method and no property, so that it is true for whoever looks at it as
#   at a file's. A ParquetWriter over it raises "I/O operation on closed file" before the first row, and the message sends
#   one to look for a writer that was closed too early. A file of Python's own in between (io.RawIOBase, io.BufferedWriter)
#   mends it. Written by hand, without pyarrow, the writer works.
# Source: obstore's API page shows `closed()` as a method of WritableFile, and says of the class that it is file-like.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1 pyarrow==26.0.1 2>/dev/null
cat > "$work/ask.py" <<'PY'
import io

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import MemoryStore

rows, store = pa.table({"n": [1, 2, 3]}), MemoryStore()
with obstore.open_writer(store, "plain") as writer:
    print("closed of an open writer, as a file's is asked:", bool(writer.closed), "- as a method:", writer.closed())
    writer.write(b"123")
print("written by hand:", bytes(obstore.get(store, "plain").bytes()))
try:
    with obstore.open_writer(store, "rows.parquet") as writer:
        pq.write_table(rows, writer)
    print("written by pyarrow")
except ValueError as error:
    print("written by pyarrow:", type(error).__name__, error)


class Through(io.RawIOBase):
    def __init__(self, writer):
        self.writer = writer

    def writable(self):
        return True

    def write(self, data):
        return self.writer.write(bytes(data))


with obstore.open_writer(store, "rows.parquet") as writer:
    pq.write_table(rows, Through(writer))
print("through a file of Python's:", pq.read_table(io.BytesIO(obstore.get(store, "rows.parquet").bytes())).num_rows, "rows")
PY
"$work/venv/bin/python" "$work/ask.py" > "$work/seen"
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# closed of an open writer, as a file's is asked: True - as a method: False
# written by hand: b'123'
# written by pyarrow: ValueError I/O operation on closed file
# through a file of Python's: 3 rows
