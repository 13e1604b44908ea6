#!/usr/bin/env bash
# Versions: pyarrow 26.0.1 and obstore 0.12.1.
# Behaviour: AWS_ENDPOINT_URL names another store than AWS's own to tools and libraries. pyarrow heeds it where a file system
#   is made from an address (`FileSystem.from_uri("s3://...")`, as datasets and pandas do), and not where the same one is made
#   by its class (`S3FileSystem(...)`), which asks AWS. obstore and boto3 heed it both. So a program that writes by one and
#   reads by the other, with no endpoint of its own, writes to one store and looks in another.
# Source: apache/arrow#36770 and #38663 brought the variable; #49643, open, asks why the class does not heed it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyarrow==26.0.1 obstore==0.12.1 2>/dev/null
cat > "$work/ask.py" <<'PY'
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = []


class Store(BaseHTTPRequestHandler):
    def do_HEAD(self):
        asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("Last-Modified", "Mon, 02 Mar 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    # So that what is asked of AWS is seen to go elsewhere, and no further.
    "HTTPS_PROXY": "http://127.0.0.1:9",
}
import obstore
from obstore.store import S3Store
from pyarrow.fs import FileSystem, S3FileSystem


def told(name, ask):
    before = len(asked)
    try:
        ask()
        error = ""
    except OSError as failed:
        error = f", error {type(failed).__name__}"
    print(f"{name}: {'the store of AWS_ENDPOINT_URL' if len(asked) > before else 'another one'}{error}")


told("obstore", lambda: obstore.head(S3Store("lake", client_options={"allow_http": True}), "x"))
told("FileSystem.from_uri", lambda: FileSystem.from_uri("s3://lake?region=us-east-1")[0].get_file_info("lake/x"))
told("S3FileSystem", lambda: S3FileSystem(region="us-east-1", connect_timeout=2).get_file_info("lake/x"))
PY
"$work/venv/bin/python" "$work/ask.py" > "$work/seen"
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# obstore: the store of AWS_ENDPOINT_URL
# FileSystem.from_uri: the store of AWS_ENDPOINT_URL
# S3FileSystem: another one, error OSError
