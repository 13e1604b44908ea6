#!/usr/bin/env bash
# Versions: pyarrow 26.0.1 and pandas 2.3.3.
# Behaviour: `import pyarrow` leaves pandas alone, and the first Python value that is turned into Arrow, as by
#   `pa.array([1])` or `pa.scalar(1)`, imports all of it where it is installed, though no value of it is anywhere near:
#   several hundred modules that a command line pays for at its start, and that no import at the head of any file shows.
#   Whoever made imports lazy to start fast gets it all the same with the first schema-checked list. What brings no Python
#   value (a schema, a file that is read, a column computed from another) does not. Without pandas nothing is missing.
# Source: pyarrow's documentation calls pandas an optional dependency (Installing PyArrow, Dependencies); that a
#   conversion looks for its missing values (`pandas.NA`, `NaT`) is said nowhere there.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyarrow==26.0.1 pandas==2.3.3 2>/dev/null
cat > "$work/ask.py" <<'PY'
import subprocess, sys

BEGIN = "import sys, pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq\n"
FILE = sys.argv[1]
subprocess.run([sys.executable, "-c", f"{BEGIN}pq.write_table(pa.table({{'n': [1, 2]}}), {FILE!r})"], check=True)
for step in (
    "pass",
    "pa.schema([('n', pa.int64())])",
    f"pc.add(pq.ParquetFile({FILE!r}).read()['n'], pq.ParquetFile({FILE!r}).read()['n'])",
    "pa.scalar(1)",
    "pa.array([1])",
    "pa.array(['text'], pa.string())",
    "pa.array([1], from_pandas=False)",
):
    end = "\nprint(sum(name.split('.')[0] == 'pandas' for name in sys.modules) > 100)"
    done = subprocess.run([sys.executable, "-c", BEGIN + step + end], check=True, capture_output=True, text=True)
    print(f"{step.replace(FILE, 'file')}: pandas imported: {done.stdout.strip()}")
PY
"$work/venv/bin/python" "$work/ask.py" "$work/file.parquet" > "$work/seen"
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# pass: pandas imported: False
# pa.schema([('n', pa.int64())]): pandas imported: False
# pc.add(pq.ParquetFile('file').read()['n'], pq.ParquetFile('file').read()['n']): pandas imported: False
# pa.scalar(1): pandas imported: True
# pa.array([1]): pandas imported: True
# pa.array(['text'], pa.string()): pandas imported: True
# pa.array([1], from_pandas=False): pandas imported: True
