#!/usr/bin/env bash
# deltalake 1.6.6 with pyarrow 26.0.1 (Linux, Python 3.11)
#
# A commit that deletes rows by a deletion vector leaves no trace in what DeltaTable says of the table's files:
# file_uris() and get_add_actions() (paths, sizes, times, num_records) are the same before and after it. Who hands that
# list to another reader (Spark, DuckDB, Arrow), as is usual, reads the deleted rows, and who compares the lists to see
# what changed sees nothing. No error, although the table's protocol names the feature. scan() leaves the rows out, and
# deletion_vectors() is the one call that tells of them.
#
# Source: the Delta protocol, "Reader Requirements for Deletion Vectors" (records that a vector invalidates must not be
# returned): https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vectors ; deltalake's table.py refuses
# such a table in to_pyarrow_dataset() alone.
#
# Prints what it saw, and ends with 1 if that is not what stands below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install deltalake==1.6.6 pyarrow==26.0.1
"$work/venv/bin/python" - "$work/table" > "$work/saw" <<'PYTHON'
import json, pathlib, struct, sys
import pyarrow as pa, pyarrow.parquet as pq
from deltalake import DeltaTable

root = pathlib.Path(sys.argv[1])
(root / "_delta_log").mkdir(parents=True)
pq.write_table(pa.table({"n": list(range(30))}), root / "a.parquet")
fields = [{"name": "n", "type": "long", "nullable": True, "metadata": {}}]
add = {"path": "a.parquet", "partitionValues": {}, "size": (root / "a.parquet").stat().st_size,
       "modificationTime": 0, "dataChange": True, "stats": json.dumps({"numRecords": 30})}
remove = {"path": "a.parquet", "deletionTimestamp": 1, "dataChange": True}
# Rows 3, 4 and 29 in the log itself: a roaring bitmap of one array container, by the protocol's "RoaringBitmapArray".
rows = [3, 4, 29]
data = struct.pack("<IQI", 1681511377, 1, 0) + struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16)
data += struct.pack(f"<{len(rows)}H", *rows)
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
groups = struct.iter_unpack(">I", data + b"\0" * (-len(data) % 4))
text = "".join(Z85[n // 85**power % 85] for (n,) in groups for power in (4, 3, 2, 1, 0))
vector = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}

def commit(version, *actions):
    (root / "_delta_log" / f"{version:020}.json").write_text("".join(json.dumps(a) + "\n" for a in actions))

features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
commit(0, {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
       {"metaData": {"id": "0", "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
                     "schemaString": json.dumps({"type": "struct", "fields": fields}), "configuration": {}}},
       {"add": add})
before = DeltaTable(str(root))
commit(1, {"remove": remove}, {"add": {**add, "deletionVector": vector}})
after = DeltaTable(str(root))

def files(table):
    return table.file_uris(), pa.table(table.get_add_actions()).to_pylist()

print("versions:", before.version(), after.version())
print("file_uris and get_add_actions say the same of both:", files(before) == files(after))
print("num_records of the file:", pa.table(after.get_add_actions())["num_records"].to_pylist())
print("rows in the files that it lists:", pq.read_table(after.file_uris()).num_rows)
print("rows of scan():", pa.table(after.scan()).num_rows)
(told,) = pa.table(after.deletion_vectors())["selection_vector"].to_pylist()
print("rows that deletion_vectors() takes away:", [row for row, kept in enumerate(told) if not kept])
PYTHON
cat "$work/saw"
diff "$work/saw" <(sed -n 's/^#> //p' "$0")
# What it printed on 2026-11-28:
#> versions: 0 1
#> file_uris and get_add_actions say the same of both: True
#> num_records of the file: [30]
#> rows in the files that it lists: 30
#> rows of scan(): 27
#> rows that deletion_vectors() takes away: [3, 4, 29]
