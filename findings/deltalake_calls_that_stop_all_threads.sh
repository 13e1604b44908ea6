#!/usr/bin/env bash
# Versions: deltalake 1.6.6 (moto 5.2.5 as the object store).
# Behaviour: most calls of a DeltaTable let other Python threads go on while they wait for the store: opening, append,
#   merge, delete, vacuum, checkpoint. Five do not: `history`, `alter.set_table_properties`, `repair`, `restore` and
#   `DeltaTable.is_deltatable` hold the interpreter for as long as the store takes, also its retries (three minutes by
#   default). A heartbeat, a health check or a progress bar in a thread stands still meanwhile, and a lease may be lost by
#   asking for the history; a test's own server in the same process never answers.
# Source: deltalake's API pages say nothing of threads for any of them.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q deltalake==1.6.6 pyarrow==26.0.1 moto==5.2.5 flask==3.1.3 flask-cors==6.0.5 py-partiql-parser==0.6.3 2>/dev/null
cat > "$work/slow.py" <<'PY'
"""moto's S3 whose every answer takes WAIT seconds more."""
import sys, time
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

app = DomainDispatcherApplication(create_backend_app)


def slow(environ, start):
    time.sleep(float(sys.argv[2]))
    return app(environ, start)


run_simple("127.0.0.1", int(sys.argv[1]), slow, threaded=True)
PY
cat > "$work/ask.py" <<'PY'
import os, socket, subprocess, sys, threading, time, urllib.request

import pyarrow as pa
from deltalake import DeltaTable, Field, write_deltalake

WAIT = 0.4
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
server = subprocess.Popen([sys.executable, sys.argv[1], str(port), str(WAIT)], **quiet)
address, table = f"http://127.0.0.1:{port}", "s3://lake/table"
while True:
    try:
        urllib.request.urlopen(urllib.request.Request(f"{address}/lake", method="PUT"))
        break
    except OSError:
        time.sleep(0.2)
os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
options = {"AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
pause = [0.0]


def beat():
    last = time.perf_counter()
    while True:
        time.sleep(0.005)
        now = time.perf_counter()
        pause[0], last = max(pause[0], now - last), now


def told(name, call):
    pause[0] = 0.0
    begun = time.perf_counter()
    call()
    waited = time.perf_counter() - begun >= WAIT * 0.7
    print(f"{name}: waits for the store: {waited}, other threads stand still: {pause[0] >= WAIT * 0.6}")


threading.Thread(target=beat, daemon=True).start()
rows = pa.table({"key": ["a", "b"], "n": [1, 2]})


def opened():
    return DeltaTable(table, storage_options=options)


try:
    told("append", lambda: write_deltalake(table, rows, mode="append", storage_options=options))
    told("open", opened)
    merge = opened().merge(rows, "t.key = s.key", "s", "t").when_matched_update_all()
    told("merge", merge.execute)
    told("delete", lambda: opened().delete("n = 1"))
    told("create_checkpoint", lambda: opened().create_checkpoint())
    told("alter.add_columns", lambda: opened().alter.add_columns([Field("more", "string")]))
    now = opened()
    told("history", lambda: now.history(1))
    told("alter.set_table_properties", lambda: now.alter.set_table_properties({"delta.appendOnly": "false"}))
    now = opened()
    told("repair", lambda: now.repair())
    told("is_deltatable", lambda: DeltaTable.is_deltatable(table, options))
    told("restore", lambda: now.restore(now.version() - 1))
    told("vacuum", lambda: opened().vacuum(0, dry_run=False, enforce_retention_duration=False))
finally:
    server.kill()
PY
"$work/venv/bin/python" "$work/ask.py" "$work/slow.py" > "$work/seen"
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# append: waits for the store: True, other threads stand still: False
# open: waits for the store: True, other threads stand still: False
# merge: waits for the store: True, other threads stand still: False
# delete: waits for the store: True, other threads stand still: False
# create_checkpoint: waits for the store: True, other threads stand still: False
# alter.add_columns: waits for the store: True, other threads stand still: False
# history: waits for the store: True, other threads stand still: True
# alter.set_table_properties: waits for the store: True, other threads stand still: True
# repair: waits for the store: True, other threads stand still: True
# is_deltatable: waits for the store: True, other threads stand still: True
# restore: waits for the store: True, other threads stand still: True
# vacuum: waits for the store: True, other threads stand still: False
