#!/usr/bin/env bash
# Versions: pyspark 4.3.0 and pyarrow 26.0.1.
# Behaviour: `spark.createDataFrame` of a pyarrow Table loses rows without a word where a chunk in the middle of the table
#   has none: what comes after it in the same partition is not there. Batches that are filtered one by one, as a scan
#   yields them, and put together by `Table.from_batches` leave such chunks as a matter of course, so what was read and
#   filtered arrives as a part of itself, while an empty chunk at the beginning or the end does no harm, and tests with a
#   few rows in one batch show nothing. `combine_chunks()` before the call brings all rows.
# Source: `createDataFrame` says that it takes a `pyarrow.Table` (Spark's API reference, since 4.0), and pyarrow that a
#   chunked array may have empty chunks. No issue about it was found; it is what the run below sees. Java 17 is needed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyspark==4.3.0 pyarrow==26.0.1 'pandas<3' 2>/dev/null
cat > "$work/ask.py" <<'PY'
import os, sys

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

os.environ["PYSPARK_PYTHON"] = sys.executable
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
rooms = [pa.record_batch({"room": [name] * 3, "seat": [1, 2, 3]}) for name in ("attic", "cellar", "garage")]
for kept in (["attic", "cellar", "garage"], ["attic", "garage"], ["cellar", "garage"], ["attic", "cellar"]):
    seats = pa.Table.from_batches([room.filter(pc.is_in(room["room"], pa.array(kept))) for room in rooms])
    sizes = [len(chunk) for chunk in seats["room"].chunks]
    counts = [spark.createDataFrame(table).count() for table in (seats, seats.combine_chunks())]
    print(f"chunks {sizes}: {len(seats)} rows, in Spark {counts[0]}, with combine_chunks {counts[1]}")
PY
"$work/venv/bin/python" "$work/ask.py" 2>/dev/null > "$work/seen"
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# chunks [3, 3, 3]: 9 rows, in Spark 9, with combine_chunks 9
# chunks [3, 0, 3]: 6 rows, in Spark 3, with combine_chunks 6
# chunks [0, 3, 3]: 6 rows, in Spark 6, with combine_chunks 6
# chunks [3, 3, 0]: 6 rows, in Spark 6, with combine_chunks 6
