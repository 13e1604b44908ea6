"""HTTP/1.1 and HTTP/2 without TLS for ``vespa_server``: requests in, answers out, on one connection each.

HTTP/2 is read here frame by frame, with hpack for the headers: a whole protocol stack in Python took more time than all
else that the double does, and a test feeds it a hundred thousand documents.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import hpack

Answer = tuple[int, dict[str, str], bytes] | None  # status, headers and body; None breaks the connection
Serve = Callable[[str, str, str, dict[str, str], bytes], Awaitable[Answer]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
WINDOW, STREAMS = 1 << 24, 256


class Wire(asyncio.Protocol):
    """One connection; its first bytes tell the protocol, as a client with prior knowledge of HTTP/2 expects."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._held = b""
        self._http2: _Http2 | None = None
        self._queue: asyncio.Queue[tuple[str, str, dict[str, str], bytes]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._http2 is not None:
            return self._http2.receive(data)
        self._held += data
        if self._held.startswith(PREFACE):
            self._http2 = _Http2(self, self._serve)
            self._http2.receive(self._held[len(PREFACE) :])
        elif not PREFACE.startswith(self._held):
            self._receive_http1()
        return None

    def spawn(self, work: Any) -> None:
        """Run something for as long as the connection is there."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def reset(self) -> None:
        """Break the connection, as a machine that falls over does."""
        if self._http2 is not None:
            self._http2.flush()
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # HTTP/1.1: one request after the other.

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
                self.spawn(self._serve_http1())
            self._queue.put_nowait((method, target, headers, content))

    async def _serve_http1(self) -> None:
        while True:
            answer = await self._serve("http1", *await self._queue.get())
            if answer is None:
                return self.reset()
            status, headers, content = answer
            lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}", f"content-length: {len(content)}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            self.transport.write("\r\n".join([*lines, "", ""]).encode() + content)


class _Http2:
    def __init__(self, wire: Wire, serve: Serve) -> None:
        self._wire, self._serve = wire, serve
        self._held, self._out = bytearray(), bytearray()
        self._decoder = hpack.Decoder()
        self._requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        self._block, self._ends = bytearray(), False  # headers that a CONTINUATION goes on with
        self._window, self._initial, self._frame = 65_535, 65_535, 16_384  # what the client lets us send
        self._windows: dict[int, int] = {}
        self._opened, self._read = asyncio.Event(), 0
        settings = struct.pack(">HIHI", 3, STREAMS, 4, WINDOW)
        self._send(SETTINGS, 0, 0, settings)
        self._send(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65_535))

    def receive(self, data: bytes) -> None:
        self._held += data
        at = 0
        while len(self._held) - at >= 9:
            size = int.from_bytes(self._held[at : at + 3], "big")
            if len(self._held) - at < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._held, at + 3)
            self._take(kind, flags, stream & 0x7FFFFFFF, bytes(self._held[at + 9 : at + 9 + size]))
            at += 9 + size
        del self._held[:at]
        if self._read:  # what was read may be sent again at once
            self._send(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._read))
            self._read = 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._block = bytearray(_unpadded(flags, payload, priority=bool(flags & PRIORITY)))
            self._ends = bool(flags & END_STREAM)
        elif kind == CONTINUATION:
            self._block += payload
        if kind in (HEADERS, CONTINUATION) and flags & END_HEADERS:
            headers = {str(name): str(value) for name, value in self._decoder.decode(bytes(self._block))}
            self._requests[stream], self._windows[stream] = (headers, bytearray()), self._initial
            if self._ends:
                self._wire.spawn(self._answer(stream))
        elif kind == DATA:
            self._read += len(payload)
            if payload and not flags & END_STREAM:
                self._send(WINDOW_UPDATE, 0, stream, struct.pack(">I", len(payload)))
            if stream in self._requests:
                self._requests[stream][1].extend(_unpadded(flags, payload))
                if flags & END_STREAM:
                    self._wire.spawn(self._answer(stream))
        elif kind == RST_STREAM:
            self._requests.pop(stream, None)
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == 4:
                    for one in self._windows:
                        self._windows[one] += value - self._initial
                    self._initial = value
                elif name == 5:
                    self._frame = value
            self._send(SETTINGS, ACK, 0, b"")
            self._opened.set()
        elif kind == PING and not flags & ACK:
            self._send(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream == 0:
                self._window += more
            elif stream in self._windows:
                self._windows[stream] += more
            self._opened.set()

    async def _answer(self, stream: int) -> None:
        headers, content = self._requests[stream]
        answer = await self._serve("http2", headers[":method"], headers[":path"], headers, bytes(content))
        if answer is None:
            return self._wire.reset()
        if self._requests.pop(stream, None) is None:
            return None
        status, more, body = answer
        self._send(HEADERS, END_HEADERS, stream, _header_block(status, {"content-length": str(len(body)), **more}))
        while True:
            room = min(len(body), self._window, self._windows[stream], self._frame)
            if room or not body:
                self._window -= room
                self._windows[stream] -= room
                self._send(DATA, 0 if body[room:] else END_STREAM, stream, body[:room])
                body = body[room:]
                if not body:
                    break
            else:
                self._opened.clear()
                await self._opened.wait()
        del self._windows[stream]
        return None

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Send a frame, with all those of this turn of the loop: a system call a frame is most of the double's time."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self.flush)
        self._out += struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload

    def flush(self) -> None:
        """Give the connection what waits to be sent."""
        if self._out:
            self._wire.transport.write(bytes(self._out))
            self._out.clear()


def _header_block(status: int, headers: dict[str, str]) -> bytes:
    """Headers as HPACK literals that go into no table; the status by the number of its name in the static table."""
    block = b"\x08\x03%d" % status
    for name, value in headers.items():
        block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def _unpadded(flags: int, payload: bytes, *, priority: bool = False) -> bytes:
    start, end = (1, len(payload) - payload[0]) if flags & PADDED else (0, len(payload))
    return payload[start + (5 if priority else 0) : end]


def _unchunked(data: bytes) -> bytes:
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        content, data = content + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return content
