"""HTTP for whoever has no token yet: the head of a request is bounded in bytes, lines and time.

A parser without bounds copies an endless head again with each piece of it, and every other request waits meanwhile.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jobs.serve.answers import error_answer

_HEAD_BYTES = 32_768  # of the request line and all headers
_HEAD_LINES = 100
_SECONDS = 10.0  # from the first byte of a head to its end, and for the rest of a body that was refused
_TOO_LARGE = error_answer(
    431, "too_large", f"the headers are longer than {_HEAD_BYTES:,} bytes or {_HEAD_LINES} lines"
)  # it says that the connection is closed
_WRITTEN = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + b"".join(
    b"%s: %s\r\n" % header for header in _TOO_LARGE.raw_headers
)


class Protocol(HttpToolsProtocol):
    """One connection. What is counted costs a request an addition: sizes are added up for a long head alone."""

    _unread = 0  # bytes since the last whole head, piece of a body or end of a request
    _late: asyncio.TimerHandle | None = None  # closes the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close it where nothing is sent, as it is closed where nothing more is sent after an answer."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._in_time()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and end what goes on for too long: a head, or headers after a body in pieces."""
        self._unread += len(data)
        super().data_received(data)
        if not self._unread or self.transport.is_closing():
            return
        if self._unread > _HEAD_BYTES:
            self._refuse()
        else:
            self._expect()

    def on_headers_complete(self) -> None:
        """Answer a request, one with too large a head by 431."""
        size = self._unread
        if len(self.headers) > _HEAD_LINES or (size > _HEAD_BYTES and self._head_bytes() > _HEAD_BYTES):
            self.app = _TOO_LARGE  # the connection has no other request after it
        self._in_time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body. One that is no longer read, as it was refused, is not in time."""
        self._unread = 0
        if self._late is not None and not self.cycle.response_complete:
            self._in_time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._in_time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on to the next request; what is still to come of a body that was refused may not take for ever."""
        super().on_response_complete()
        if self.cycle.more_body and self.cycle.response_complete and not self.transport.is_closing():
            self._expect()

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(_SECONDS, self.transport.close)

    def _in_time(self) -> None:
        self._unread = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # else an answer is being written
            self.transport.write(_WRITTEN + b"\r\n" + bytes(_TOO_LARGE.body))
        self.transport.close()
