"""Vespa's protocol double: a process that speaks HTTP/1.1 and HTTP/2 on 127.0.0.1 as a Vespa container does.

No Vespa server can be run here, so this stands in for one; the real ``vespa`` command and pyvespa's clients prove it
in test_vespa_double.py. What it answers is ``vespa_double``'s; here are the wire, and faults by a plan that a test makes.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import Request, urlopen

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.vespa_double import VERSION, Refused, Vespa

ROOT = Path(__file__).resolve().parent.parent
# A fault of a request: an answer of a status, no answer, a connection that breaks before or after the work is done.
FAULTS = ("429", "503", "504", "507", "stall", "reset", "lost")
STALL_SECONDS = 3.0
_SETTING = h2.settings.SettingCodes
# What a container says of itself; the command line asks it whether /document/v1 is there.
_STATUS = {
    "application": {"vespa": {"version": VERSION}},
    "handlers": [
        {
            "id": "com.yahoo.document.restapi.resource.DocumentV1ApiHandler",
            "class": "com.yahoo.document.restapi.resource.DocumentV1ApiHandler",
            "serverBindings": ["http://*/document/v1/*"],
        }
    ],
}


class VespaServer:
    """The double in a process of its own, started with the package in a folder."""

    def __init__(self, package: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.vespa_server", str(package)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.uri = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def plan(self, *faults: str, slow: float = 0.0, token: str = "") -> None:
        """Fail the next requests for documents and searches so, "" for one that does not fail; forget what was seen.

        ``slow`` is how long every answer takes, and ``token`` what every request must carry.
        """
        self._control("plan", {"faults": faults, "slow": slow, "token": token})

    def seen(self) -> dict[str, Any]:
        """Requests since the last plan: by status or fault, by protocol, and the most under way at once."""
        return dict(self._control("seen", {}))

    def deploy(self, package: Path, *, empty: bool = False) -> None:
        """Deploy another package, into an application with no documents if ``empty``."""
        self._control("deploy", {"package": str(package), "empty": empty})

    def documents(self, kind: str) -> dict[str, dict[str, Any]]:
        """What it holds of a type, by id, vectors left out."""
        return dict(self._control("documents", {"kind": kind}))

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=10)

    def _control(self, what: str, body: dict[str, Any]) -> Any:
        request = Request(f"{self.uri}/control/{what}", json.dumps(body).encode(), method="POST")
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)


class Container:
    """What is behind the wire, whichever protocol it came over."""

    def __init__(self, package: Path) -> None:
        self.vespa = Vespa(package)
        self.reset({"faults": [], "slow": 0.0, "token": ""})

    def reset(self, body: dict[str, Any]) -> None:
        """Begin a plan."""
        self.faults, self.slow, self.token = iter(body["faults"]), body["slow"], body["token"]
        self.counts: Counter[str] = Counter()
        self.busy = self.most = 0

    async def answer(
        self, protocol: str, method: str, target: str, headers: dict[str, str], content: bytes
    ) -> tuple[int, dict[str, str], bytes] | None:
        """Status, headers and body; None for a connection that breaks."""
        url = urlsplit(target)
        params: dict[str, Any] = dict(parse_qsl(url.query, keep_blank_values=True))
        if headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        body = json.loads(content) if content else None
        if url.path.startswith("/control/"):
            return self._answered(200, self._control(url.path.split("/")[2], body), headers)
        if url.path in ("/ApplicationStatus", "/status.html", "/"):
            return self._answered(200, _STATUS, headers)
        fault = next(self.faults, "")
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.counts[protocol] += 1
        try:
            if self.slow:
                await asyncio.sleep(self.slow)
            if fault == "reset":
                self.counts["reset"] += 1
                return None
            if fault == "stall":
                self.counts["stall"] += 1
                await asyncio.sleep(STALL_SECONDS)
                return None
            if fault and fault != "lost":
                raise Refused(int(fault), f"Refused by the plan: {content[:200]!r}")
            if self.token and headers.get("authorization") != f"Bearer {self.token}":
                raise Refused(401, "Unauthorized")
            status, found = 200, self._work(method, url.path, params, body)
        except Refused as refused:
            status, found = refused.status, self._refusal(url.path, refused)
        except Exception as error:
            status, found = 500, {"message": f"the double failed: {error!r}"}
        finally:
            self.busy -= 1
        self.counts["lost" if fault == "lost" else str(status)] += 1
        return None if fault == "lost" else self._answered(status, found, headers)

    def _work(self, method: str, path: str, params: dict[str, Any], body: Any) -> dict[str, Any]:
        if path.startswith("/document/v1/"):
            return self.vespa.document(method, path, params, body)
        if path.rstrip("/") == "/search":
            return self.vespa.search(params | (body or {}))
        raise Refused(404, f"Nothing at '{path}'")

    @staticmethod
    def _refusal(path: str, refused: Refused) -> dict[str, Any]:
        if path.startswith("/search"):
            error = {"code": refused.status, "summary": "Refused", "message": str(refused)}
            return {"root": {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": 0}, "errors": [error]}}
        parts = [unquote(part) for part in path.split("/")]
        whole = {"id": f"id:{parts[3]}:{parts[4]}::{'/'.join(parts[6:])}"} if len(parts) > 6 and parts[6] else {}
        return {"pathId": path} | whole | ({"message": str(refused)} if str(refused) else {})

    @staticmethod
    def _answered(status: int, found: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        more = {"x-vespa-ignored-fields": "true"} if isinstance(found, dict) and found.pop("ignored", False) else {}
        if headers.get("accept") == "application/cbor" and "root" in found:
            return status, {"content-type": "application/cbor"}, b"".join(cbor(found))
        content = json.dumps(found, ensure_ascii=False).encode()
        return status, {"content-type": "application/json; charset=UTF-8"} | more, content

    def _control(self, what: str, body: Any) -> Any:
        if what == "plan":
            self.reset(body)
        elif what == "seen":
            return dict(self.counts) | {"most": self.most}
        elif what == "documents":
            return self.vespa.types[body["kind"]].documents
        elif body["empty"]:
            self.vespa = Vespa(Path(body["package"]))
        else:
            self.vespa.deploy(Path(body["package"]))
        return {}


def cbor(value: Any) -> list[bytes]:
    """A value of JSON in CBOR, which pyvespa's client asks a query's answer in."""

    def head(major: int, size: int) -> bytes:
        for limit, extra, form in (
            (24, 0, ""),
            (2**8, 24, ">B"),
            (2**16, 25, ">H"),
            (2**32, 26, ">I"),
            (2**64, 27, ">Q"),
        ):
            if size < limit:
                return bytes([major << 5 | (extra or size)]) + (struct.pack(form, size) if form else b"")
        raise OverflowError(size)

    if isinstance(value, bool) or value is None:
        return [{False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]]
    if isinstance(value, int):
        return [head(0, value) if value >= 0 else head(1, -1 - value)]
    if isinstance(value, float):
        return [b"\xfb" + struct.pack(">d", value)]
    if isinstance(value, str):
        return [head(3, len(value.encode())), value.encode()]
    if isinstance(value, dict):
        return [head(5, len(value)), *(part for pair in value.items() for item in pair for part in cbor(item))]
    return [head(4, len(value)), *(part for item in value for part in cbor(item))]


class Wire(asyncio.Protocol):
    """One connection; its first bytes tell the protocol, as a client with prior knowledge of HTTP/2 expects."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._http2: h2.connection.H2Connection | None = None
        self._held = b""
        self._streams: dict[int, tuple[dict[str, str], bytearray]] = {}
        self._windows = asyncio.Event()
        self._queue: asyncio.Queue[tuple[str, str, dict[str, str], bytes]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._held += data
        if self._http2 is not None or self._held.startswith(b"PRI * HTTP/2.0\r\n"):
            self._receive_http2()
        elif len(self._held) > 3:
            self._receive_http1()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _break(self) -> None:
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._transport.abort()

    # -- HTTP/1.1: one request after the other, with a length -----------------------------------------------------------

    def _receive_http1(self) -> None:
        while b"\r\n\r\n" in self._held:
            head, _, rest = self._held.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if headers.get("transfer-encoding") == "chunked":
                if not rest.endswith(b"0\r\n\r\n"):
                    return
                content, rest = _unchunked(rest), b""
            else:
                size = int(headers.get("content-length", 0))
                if len(rest) < size:
                    return
                content, rest = rest[:size], rest[size:]
            self._held = rest
            if not self._tasks:
                self._spawn(self._serve_http1())
            self._queue.put_nowait((method, target, headers, content))

    async def _serve_http1(self) -> None:
        while True:
            answer = await self._container.answer("http1", *await self._queue.get())
            if answer is None:
                return self._break()
            status, headers, content = answer
            lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}", f"content-length: {len(content)}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            self._transport.write("\r\n".join([*lines, "", ""]).encode() + content)

    # -- HTTP/2 ---------------------------------------------------------------------------------------------------------

    def _receive_http2(self) -> None:
        if self._http2 is None:
            self._http2 = h2.connection.H2Connection(
                h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False)
            )
            self._http2.local_settings = h2.settings.Settings(
                client=False,
                initial_values={_SETTING.MAX_CONCURRENT_STREAMS: 256, _SETTING.INITIAL_WINDOW_SIZE: 1 << 20},
            )
            self._http2.initiate_connection()
            self._http2.increment_flow_control_window(1 << 24)
        data, self._held = self._held, b""
        try:
            events = self._http2.receive_data(data)
        except h2.exceptions.ProtocolError:
            return self._break()
        for event in events:
            match event:
                case h2.events.RequestReceived():
                    self._streams[event.stream_id] = (dict(event.headers), bytearray())
                case h2.events.DataReceived():
                    self._streams[event.stream_id][1].extend(event.data)
                    self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self._spawn(self._serve_http2(event.stream_id))
                case h2.events.StreamReset():
                    self._streams.pop(event.stream_id, None)
                case h2.events.WindowUpdated():
                    self._windows.set()
        self._flush()

    async def _serve_http2(self, stream: int) -> None:
        assert self._http2 is not None
        headers, content = self._streams[stream]
        answer = await self._container.answer("http2", headers[":method"], headers[":path"], headers, bytes(content))
        if answer is None:
            return self._break()
        if self._streams.pop(stream, None) is None:
            return None
        status, more, body = answer
        self._http2.send_headers(stream, [(":status", str(status)), ("content-length", str(len(body))), *more.items()])
        while len(body) > (
            room := min(self._http2.local_flow_control_window(stream), self._http2.max_outbound_frame_size)
        ):
            if room:
                self._http2.send_data(stream, body[:room])
                body = body[room:]
            else:
                self._windows.clear()
                self._flush()
                await self._windows.wait()
        self._http2.send_data(stream, body, end_stream=True)
        self._flush()
        return None

    def _flush(self) -> None:
        assert self._http2 is not None
        if data := self._http2.data_to_send():
            self._transport.write(data)


def _unchunked(data: bytes) -> bytes:
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        content, data = content + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return content


async def _main(arguments: Sequence[str]) -> None:
    container = Container(Path(arguments[0]))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Wire(container), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the one who started it closes it, or is gone


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
