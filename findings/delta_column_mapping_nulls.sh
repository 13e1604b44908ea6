#!/usr/bin/env bash
# deltalake 1.6.6 with pyarrow 26.0.1 (Linux, Python 3.11)
#
# A Delta table whose columns are mapped by name or id (a renamed column is enough for a writer to turn that on) is read
# by to_pyarrow_table() with null in every column that is not a partition's, and the right number of rows, where the
# table has reader version 2. There is no error and no warning. Where the same mapping is declared as a feature of reader
# version 3, the same call refuses the table. scan() gives the values in both.
#
# Source: the Delta protocol, "Reader Requirements for Column Mapping" (columns are resolved by their physical names or
# field ids): https://github.com/delta-io/delta/blob/master/PROTOCOL.md#column-mapping ; deltalake's table.py,
# to_pyarrow_dataset(), asks for reader features, which a protocol of version 2 does not list.
#
# Prints what it saw, and ends with 1 if that is not what stands below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install deltalake==1.6.6 pyarrow==26.0.1
"$work/venv/bin/python" - "$work" > "$work/saw" <<'PYTHON'
import json, pathlib, sys
import pyarrow as pa, pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaProtocolError

def table(root, mode, protocol):
    (root / "_delta_log").mkdir(parents=True)
    physical = pa.schema([pa.field("col-1", pa.string(), metadata={"PARQUET:field_id": "1"})])
    pq.write_table(pa.table([["said"]], schema=physical), root / "a.parquet")
    mapped = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"}
    fields = [{"name": "text", "type": "string", "nullable": True, "metadata": mapped}]
    actions = [
        {"protocol": protocol},
        {"metaData": {"id": "0", "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
                      "schemaString": json.dumps({"type": "struct", "fields": fields}),
                      "configuration": {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "1"}}},
        {"add": {"path": "a.parquet", "partitionValues": {}, "size": (root / "a.parquet").stat().st_size,
                 "modificationTime": 0, "dataChange": True, "stats": json.dumps({"numRecords": 1})}},
    ]
    (root / "_delta_log" / f"{0:020}.json").write_text("".join(json.dumps(a) + "\n" for a in actions))
    return DeltaTable(str(root))

features = {"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]}
protocols = {2: {"minReaderVersion": 2, "minWriterVersion": 5}, 3: {"minReaderVersion": 3, "minWriterVersion": 7, **features}}
for version, protocol in protocols.items():
    for mode in ("name", "id"):
        found = table(pathlib.Path(sys.argv[1], f"{version}{mode}"), mode, protocol)
        try:
            read = found.to_pyarrow_table().to_pydict()
        except DeltaProtocolError:
            read = "refused"
        print(f"reader version {version}, mode {mode}: to_pyarrow_table {read}, scan {pa.table(found.scan()).to_pydict()}")
PYTHON
cat "$work/saw"
diff "$work/saw" <(sed -n 's/^#> //p' "$0")
# What it printed on 2026-11-28:
#> reader version 2, mode name: to_pyarrow_table {'text': [None]}, scan {'text': ['said']}
#> reader version 2, mode id: to_pyarrow_table {'text': [None]}, scan {'text': ['said']}
#> reader version 3, mode name: to_pyarrow_table refused, scan {'text': ['said']}
#> reader version 3, mode id: to_pyarrow_table refused, scan {'text': ['said']}
