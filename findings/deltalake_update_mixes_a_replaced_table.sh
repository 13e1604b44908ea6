#!/usr/bin/env bash
# deltalake 1.6.6 with pyarrow 26.0.1 (Linux, Python 3.11)
#
# A handle that is kept open while its table is removed and written anew at the same place takes the new table for its
# own. update_incremental() reads the log entries above the version that it has and adds them to what it holds: files
# of the removed table stay listed beside those of the new one, whose first entries are never seen, and the id is the
# former table's. There is no error where the new log is as long as the old one or longer. An append by such a handle is
# committed into the new table. Only a log that ends earlier is noticed (DeltaError). to_pyarrow_table() then misses a
# file. A handle that is opened again is right.
#
# Source: deltalake's table.py, update_incremental ("Updates the DeltaTable to the latest version by incrementally
# applying newer versions"); the Delta protocol gives each table an id in its metadata, which would tell them apart:
# https://github.com/delta-io/delta/blob/master/PROTOCOL.md#change-metadata
#
# Prints what it saw, and ends with 1 if that is not what stands below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install deltalake==1.6.6 pyarrow==26.0.1
"$work/venv/bin/python" - "$work/tables" > "$work/saw" <<'PYTHON'
import os, shutil, sys
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

def written(path, commits):
    for number in range(commits):
        write_deltalake(path, pa.table({"row": [number]}), mode="append")

def files(table):
    return {os.path.basename(uri) for uri in table.file_uris()}

for commits in (2, 3, 6):
    path = os.path.join(sys.argv[1], str(commits))
    written(path, 3)
    kept = DeltaTable(path)
    former, former_files = kept.metadata().id, files(kept)
    shutil.rmtree(path)
    written(path, commits)
    try:
        kept.update_incremental()
    except DeltaError:
        print(f"3 commits, then anew {commits}: refused")
        continue
    new, listed = DeltaTable(path), files(kept)
    said = f"version {kept.version()}, {len(listed & former_files)} files of the former table"
    said += f", {len(listed & files(new))} of the new one's {len(files(new))}"
    said += f", id of the former {kept.metadata().id == former}"
    write_deltalake(kept, pa.table({"row": [99]}), mode="append")
    print(f"3 commits, then anew {commits}: {said}; appended as version {DeltaTable(path).version()}")
PYTHON
cat "$work/saw"
diff "$work/saw" <(sed -n 's/^#> //p' "$0")
# What it printed on 2026-11-30:
#> 3 commits, then anew 2: refused
#> 3 commits, then anew 3: version 2, 3 files of the former table, 0 of the new one's 3, id of the former True; appended as version 3
#> 3 commits, then anew 6: version 5, 3 files of the former table, 3 of the new one's 6, id of the former True; appended as version 6
