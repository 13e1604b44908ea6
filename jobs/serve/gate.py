"""What finds no place is refused before anything of it is read: in a rush a refusal must cost little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send


class Gate:
    """ASGI middleware: ``refusal`` is asked about path and headers of a POST, and answers where there is no place."""

    def __init__(self, app: ASGIApp, refusal: Callable[[str, Headers], Response | None]) -> None:
        self._app, self._refusal = app, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        asked = scope["type"] == "http" and scope["method"] == "POST"
        await ((self._refusal(scope["path"], Headers(scope=scope)) if asked else None) or self._app)(
            scope, receive, send
        )
