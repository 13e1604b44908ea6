"""At the door of `serve`: a rush is refused before anything of it is read, and no other request is."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from jobs.serve.gate import Gate


def through(gate: Gate, method: str, path: str) -> int:
    """The status that a request gets; it fails where anything of its body is read."""
    statuses: list[int] = []

    async def receive() -> Any:
        raise AssertionError("it was read")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asyncio.run(
        gate({"type": "http", "method": method, "path": path, "headers": [(b"x-space", b"one")]}, receive, send)
    )
    [status] = statuses
    return status


def test_what_finds_no_place_is_refused_unread_and_what_asks_how_the_process_is_gets_in() -> None:
    asked: list[str] = []

    def refusal(path: str, headers: Headers) -> Response | None:
        asked.append(f"{path} {headers['x-space']}")
        return Response(status_code=429) if path == "/embed" else None

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await Response(status_code=200)(scope, receive, send)

    gate = Gate(inside, refusal)
    assert [through(gate, "POST", "/embed"), through(gate, "POST", "/search")] == [429, 200]
    assert [through(gate, "GET", path) for path in ("/healthz", "/embed")] == [200, 200]
    assert asked == ["/embed one", "/search one"]
