#!/usr/bin/env bash
# Versions: pymilvus 3.0.2 and milvus-lite 3.2.2; Milvus server 2.3.5 (PyPI package milvus).
# Behaviour: `insert` of a primary key that is already there replaces the row in Milvus Lite, while the server keeps both
#   rows: its count(*) is 2, and a search can return the older one. Both answer that one row was inserted, and neither
#   says that the key was known. A program that was only tried on Milvus Lite may therefore use `insert` where it needs
#   `upsert`, and doubles its rows on the day it moves to a server.
#   In the same way a vector with a NaN is taken by Milvus Lite, and is then found with a score of NaN by every search;
#   the server refuses it.
# Source: github.com/milvus-io/milvus issues 36199 and 52047 (of a server: by design, `upsert` is for replacing). Of Milvus
#   Lite nothing was found in writing; it is what the run below sees.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/client"; python3 -m venv "$work/server"
"$work/client/bin/pip" install -q pymilvus==3.0.2 milvus-lite==3.2.2 2>/dev/null
"$work/server/bin/pip" install -q milvus==2.3.5 2>/dev/null
cat > "$work/serve.py" <<'PY'
import sys
from milvus import default_server
default_server.set_base_dir(sys.argv[1])
default_server.start()
print(default_server.listen_port, flush=True)
sys.stdin.read()
default_server.stop()
PY
cat > "$work/ask.py" <<'PY'
import logging, subprocess, sys
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

logging.disable(logging.CRITICAL)
work = sys.argv[1]


def ask(client):
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=16)
    schema.add_field("text", DataType.VARCHAR, max_length=16)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=4)
    index = client.prepare_index_params()
    index.add_index("v", index_type="FLAT", metric_type="COSINE")
    client.create_collection("t", schema=schema, index_params=index, consistency_level="Strong")
    for text, vector in (("old", [1, 0, 0, 0]), ("new", [0, 1, 0, 0])):
        client.insert("t", [{"id": "a", "text": text, "v": [float(x) for x in vector]}])
    client.load_collection("t")
    count = client.query("t", filter="id != ''", output_fields=["count(*)"])[0]["count(*)"]
    hit = client.search("t", data=[[1.0, 0.0, 0.0, 0.0]], limit=1, output_fields=["text"])[0][0]
    found = hit["entity"]["text"] if hit["distance"] > 0.9 else "nothing"
    try:
        client.insert("t", [{"id": "n", "text": "nan", "v": [float("nan"), 0.0, 0.0, 0.0]}])
        nan = "taken"
    except MilvusException:
        nan = "refused"
    return f"rows of one key: {count}; a search for its first vector finds: {found}; a vector with NaN: {nan}"


lite = ask(MilvusClient(f"{work}/lite.db"))
server = subprocess.Popen([f"{work}/server/bin/python", f"{work}/serve.py", f"{work}/data"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
port = server.stdout.readline().strip()
full = ask(MilvusClient(f"http://127.0.0.1:{port}"))
server.communicate(timeout=60)
print("Milvus Lite  ", lite)
print("Milvus 2.3.5 ", full)
expected = ("rows of one key: 1; a search for its first vector finds: nothing; a vector with NaN: taken",
            "rows of one key: 2; a search for its first vector finds: old; a vector with NaN: refused")
sys.exit((lite, full) != expected)
PY
"$work/client/bin/python" "$work/ask.py" "$work"

# Saw, on Python 3.11:
# Milvus Lite   rows of one key: 1; a search for its first vector finds: nothing; a vector with NaN: taken
# Milvus 2.3.5  rows of one key: 2; a search for its first vector finds: old; a vector with NaN: refused
