"""How answers and refusals look: JSON, the space in a header, and one shape of errors."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobs.serve.requests import BadRequest

SPACE = "x-embedmill-space"
JSON = "application/json"


class Refused(Exception):
    """A request that gets another status than 200."""

    def __init__(self, status: int, code: str, message: str, after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.after = status, code, after


def answered(value: Any, space_id: str = "", status: int = 200) -> Response:
    """A value as JSON; arrays of numpy may be in it."""
    headers = {SPACE: space_id} if space_id else None
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, JSON)


def error_answer(status: int, code: str, message: str, after: int | None = None) -> Response:
    """A refusal. ``after`` is when to come again, in seconds."""
    headers = {} if after is None else {"retry-after": str(after)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    elif status in (408, 431):  # the rest of the request may never come
        headers["connection"] = "close"
    body = {"error": {"message": message, "type": "error", "code": code}}
    return Response(orjson.dumps(body), status, headers, JSON)


def only(headers: Headers, name: str) -> str:
    """A header that counts once, "" where it is not there. Raises BadRequest where there are two of it."""
    found = headers.getlist(name)
    if len(found) > 1:
        raise BadRequest(f"{name}: give it once")
    return found[0] if found else ""


async def not_there(_: Request, error: Exception) -> Response:
    """The answer to a path or a method that is not there."""
    assert isinstance(error, HTTPException)
    code, message = "not_found", "there is no such path"
    if error.status_code == 405:
        code, message = "method_not_allowed", "the path takes another method"
    answer = error_answer(error.status_code, code, message)
    answer.headers.update(error.headers or {})
    return answer
