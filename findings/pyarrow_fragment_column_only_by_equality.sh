#!/usr/bin/env bash
# pyarrow 26.0.1 (Linux, Python 3.11)
#
# A dataset's fragment takes a partition expression, which is a guarantee about its rows. A column that the file does
# not have gets its value from that guarantee only where it is an equality. ``isin`` of a single value guarantees the
# same, and yet the column is null in every row, and filters on it, by ``==`` and by ``isin``, find no row, without an
# error.
#
# Source: https://arrow.apache.org/docs/python/generated/pyarrow.dataset.ParquetFileFormat.html (make_fragment,
# partition_expression: "An expression that is guaranteed true for all rows in the fragment").
#
# Prints what it saw, and ends with 1 if that is not what stands below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install pyarrow==26.0.1
"$work/venv/bin/python" - "$work" > "$work/saw" <<'PYTHON'
import os, sys
import pyarrow as pa, pyarrow.compute as pc, pyarrow.dataset as ds, pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

os.chdir(sys.argv[1])
pq.write_table(pa.table({"n": [1, 2]}), "rows.parquet")
form, schema = ds.ParquetFileFormat(), pa.schema([("n", pa.int64()), ("team", pa.string())])
for name, says in (("==", pc.field("team") == "a"), ("isin", pc.field("team").isin(["a"]))):
    fragment = form.make_fragment("rows.parquet", LocalFileSystem(), says)
    data = ds.FileSystemDataset([fragment], schema, form, LocalFileSystem())
    print(name, "all:", data.to_table()["team"].to_pylist())
    print(name, "team == a:", data.to_table(filter=pc.field("team") == "a").to_pylist())
    print(name, "team in (a):", data.to_table(filter=pc.field("team").isin(["a"])).to_pylist())
PYTHON
cat "$work/saw"
diff "$work/saw" <(sed -n 's/^#> //p' "$0")
# What it printed on 2026-11-28:
#> == all: ['a', 'a']
#> == team == a: [{'n': 1, 'team': 'a'}, {'n': 2, 'team': 'a'}]
#> == team in (a): [{'n': 1, 'team': 'a'}, {'n': 2, 'team': 'a'}]
#> isin all: [None, None]
#> isin team == a: []
#> isin team in (a): []
