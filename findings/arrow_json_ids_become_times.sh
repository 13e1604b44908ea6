#!/usr/bin/env bash
# pyarrow 26.0.1 (Linux, Python 3.11)
#
# pyarrow.json.read_json gives JSON *strings* the type timestamp where every string of a column in the file looks like a
# time. What a string is read as thus depends on the other rows of its file: an id "2024-01-01T10:00:00+05:00" is that
# text beside an id "x", and the moment 05:00 UTC without it, and two different ids can become one value. A column of
# ids or keys keeps its characters only with an explicit schema.
#
# Source: https://arrow.apache.org/docs/python/json.html (automatic type inference: a string that fails to be parsed as
# a timestamp makes the column a string).
#
# Prints what it saw, and ends with 1 if that is not what stands below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install pyarrow==26.0.1
"$work/venv/bin/python" - > "$work/saw" <<'PYTHON'
import io, json
import pyarrow as pa, pyarrow.json as pj

def read(ids, **how):
    return pj.read_json(io.BytesIO("".join(json.dumps({"id": i}) + "\n" for i in ids).encode()), **how)["id"]

one, same = "2024-01-01T10:00:00+05:00", "2024-01-01 05:00:00Z"
alone, beside = read([one, same]), read([one, "x"])
print("alone:", alone.type, [str(value) for value in alone.to_pylist()])
print("beside another id:", beside.type, beside.to_pylist())
print("two ids are one value:", len(alone.unique()) == 1)
explicit = read([one, same], parse_options=pj.ParseOptions(explicit_schema=pa.schema([("id", pa.string())])))
print("with a schema:", explicit.to_pylist())
PYTHON
cat "$work/saw"
diff "$work/saw" <(sed -n 's/^#> //p' "$0")
# What it printed on 2026-11-28:
#> alone: timestamp[s] ['2024-01-01 05:00:00', '2024-01-01 05:00:00']
#> beside another id: string ['2024-01-01T10:00:00+05:00', 'x']
#> two ids are one value: True
#> with a schema: ['2024-01-01T10:00:00+05:00', '2024-01-01 05:00:00Z']
