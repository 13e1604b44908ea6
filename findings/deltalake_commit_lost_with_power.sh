#!/usr/bin/env bash
# Versions: deltalake 1.6.6 and pyarrow 26.0.1 on Linux, ext4 with its journal, as mkfs.ext4 makes it.
# Behaviour: a commit to a table on a local disk that has been acknowledged, and read back, is gone after a loss of power,
#   and so may be the whole table: neither the log's entry, nor the data files, nor their folders are flushed. To flush the
#   log's entries and their folder is not enough and is worse: the table then opens, counts its rows by the log, and
#   cannot read them. With the data files and their folders flushed too it is whole. Who acknowledges work to others after
#   a commit (a queue, a ledger) has to flush all of them first.
# Source: delta-rs' documentation calls its transactions ACID; the protocol (delta-io, PROTOCOL.md) leaves durability to
#   the storage. Needs root, for a file system in a file that is shut down without writing its journal
#   (EXT4_IOC_SHUTDOWN), which is what a loss of power leaves of it.
set -euo pipefail
work=$(mktemp -d); trap 'umount "$work/disk" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q deltalake==1.6.6 pyarrow==26.0.1 2>/dev/null
truncate -s 64M "$work/image"; mkfs.ext4 -q "$work/image"; mkdir "$work/disk"; mount -o loop "$work/image" "$work/disk"
cat > "$work/ask.py" <<'PY'
import fcntl, os, struct, subprocess, sys
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

image, disk = sys.argv[1:]


def flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def cut_power():
    descriptor = os.open(disk, os.O_RDONLY)
    fcntl.ioctl(descriptor, 0x8004587D, struct.pack("I", 2))
    os.close(descriptor)
    subprocess.run(["umount", disk], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)


for said, patterns in (
    ("nothing", []),
    ("the log", ["_delta_log/*", "_delta_log", ""]),
    ("log and data", ["*.parquet", "_delta_log/*", "_delta_log", ""]),
):
    table = Path(disk, said.replace(" ", "_"))
    for number in range(3):
        write_deltalake(str(table), pa.table({"number": [number] * 1000}), mode="append")
    before = len(DeltaTable(str(table)).to_pyarrow_table())
    for pattern in patterns:
        for path in table.glob(pattern) if pattern else [table, table.parent]:
            flush(path)
    cut_power()
    after = "no table"
    if table.exists():
        found = DeltaTable(str(table))
        counted = sum(pa.table(found.get_add_actions())["num_records"].to_pylist())
        try:
            read = f"{len(found.to_pyarrow_table())} rows read"
        except Exception as error:
            read = f"reading: {type(error).__name__}"
        after = f"{found.version() + 1} commits, {counted} rows by the log, {read}"
    print(f"flushed {said}: {before} rows before, then {after}", flush=True)
os._exit(0)
PY
"$work/venv/bin/python" "$work/ask.py" "$work/image" "$work/disk" 2>"$work/err" > "$work/seen" || { tail -5 "$work/err"; exit 1; }
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# flushed nothing: 3000 rows before, then no table
# flushed the log: 3000 rows before, then 3 commits, 3000 rows by the log, reading: OSError
# flushed log and data: 3000 rows before, then 3 commits, 3000 rows by the log, 3000 rows read
