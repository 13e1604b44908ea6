#!/usr/bin/env bash
# Versions: boto3 1.44.5 and botocore 1.44.5 (urllib3 2).
# Behaviour: a store, or a balancer before it, may close a connection in the middle of an object. Who reads the body of
#   `get_object` with `read()` is told: the client compares what came with what was announced, and raises. Who reads with a
#   bound, `read(n)`, as one does to take no more than so many bytes, gets what came, and no error: the comparison is made
#   only by a read without a bound, or by a further read that finds nothing. So a bounded read of a whole object takes half
#   of it for all of it. Chunks and lines are read to their end, and raise.
# Source: botocore/response.py, StreamingBody.read: `if amt is None or (not chunk and amt > 0): self._verify_content_length()`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.5 botocore==1.44.5 2>/dev/null
cat > "$work/ask.py" <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.config import Config


class Cut(BaseHTTPRequestHandler):
    """Announces 4,800 bytes, sends half of them and closes the connection."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4800")
        self.send_header("ETag", '"e"')
        self.end_headers()
        self.wfile.write(b"x" * 2400)
        self.close_connection = True


server = ThreadingHTTPServer(("127.0.0.1", 0), Cut)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{server.server_port}",
    region_name="us-east-1",
    aws_access_key_id="a",
    aws_secret_access_key="b",
    config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
)
ways = {
    "read()": lambda body: body.read(),
    "read(4800)": lambda body: body.read(4800),
    "read(10000)": lambda body: body.read(10_000),
    "iter_chunks()": lambda body: b"".join(body.iter_chunks()),
}
for name, way in ways.items():
    body = client.get_object(Bucket="lake", Key="half")["Body"]
    try:
        print(f"{name}: {len(way(body))} bytes of 4800, no error")
    except Exception as error:
        print(f"{name}: {type(error).__name__}")
PY
"$work/venv/bin/python" "$work/ask.py" > "$work/seen"
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# read(): ResponseStreamingError
# read(4800): 2400 bytes of 4800, no error
# read(10000): 2400 bytes of 4800, no error
# iter_chunks(): IncompleteReadError
