"""The routes: bodies in, bodies out, and which refusal is which status. Texts and tokens are never told to anybody."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedding.errors import ConfigError, EmbedmillError
from jobs.bodies.answers import SearchBody
from jobs.scope import parse_moment
from jobs.search.permalinks import Permalinks
from jobs.search.search_body import search_body
from jobs.search.searcher import Query
from jobs.serve import metrics
from jobs.serve.access import Access, Forbidden, Grant, Unauthenticated
from jobs.serve.batcher import WAIT, Overloaded, TooLate
from jobs.serve.gate import Gate
from jobs.serve.requests import BadRequest, EmbeddingsRequest, EmbedRequest, SearchBodyRequest, parse
from jobs.serve.spaces import Served, Spaces
from jobs.telemetry.error_reporting import describe

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline
    from jobs.serve.batcher import Vectors

SPACE = "x-embedmill-space"
TIMEOUT = "x-embedmill-timeout"
ROUTES = ("/v1/embeddings", "/embed", "/search")
_JSON = "application/json"
Handler = Callable[[Request, Grant, float], Awaitable[Response]]


class Refused(Exception):
    """A request that gets another status than 200."""

    def __init__(self, status: int, code: str, message: str, after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.after = status, code, after


class Service:
    """What the routes share. ``draining`` makes the process unready while it goes on answering."""

    def __init__(
        self, pipeline: Pipeline, spaces: Spaces, told: metrics.ServeMetrics, say: Callable[[str], None]
    ) -> None:
        self.draining = False
        self._config, self._settings = pipeline.config, pipeline.config.serve
        self._access = Access(pipeline.config)
        self._links = Permalinks(pipeline.config.sources)
        self._spaces, self._metrics, self._say = spaces, told, say
        self._under_way = 0
        self._busy = _error(429, "overloaded", str(Overloaded(1)), 1)

    def app(self, life: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None) -> Starlette:
        """The ASGI application; ``life`` is entered before its first request, and left after its last."""
        return Starlette(
            routes=[
                Route("/v1/embeddings", self._answering("/v1/embeddings", self._embeddings), methods=["POST"]),
                Route("/embed", self._answering("/embed", self._embed), methods=["POST"]),
                Route("/search", self._answering("/search", self._search), methods=["POST"]),
                Route("/healthz", self._healthy),
                Route("/readyz", self._ready),
                Route("/metrics", self._told),
            ],
            middleware=[Middleware(Gate, self._refusal)],
            lifespan=life,
        )

    # -- frame -------------------------------------------------------------------------------------------------------

    def _refusal(self, path: str) -> Response | None:
        """The answer to a request that finds no place, or would hardly be answered in time."""
        late = WAIT * self._settings.deadline_seconds
        if self._under_way < self._settings.requests and all(o.wait_seconds() <= late for o in self._spaces.served()):
            return None
        self._metrics.requests.labels(path if path in ROUTES else "other", "429").inc()
        return self._busy

    def _answering(self, route: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            self._under_way += 1
            try:
                response = await self._guarded(request, handler)
            finally:
                self._under_way -= 1
            self._metrics.requests.labels(route, str(response.status_code)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
            return response

        return answer

    async def _guarded(self, request: Request, handler: Handler) -> Response:
        try:
            grant = self._access.grant(request.headers.get("authorization", ""))
            return await handler(request, grant, time.monotonic() + self._seconds(request))
        except Refused as error:
            return _error(error.status, error.code, str(error), error.after)
        except Unauthenticated as error:
            return _error(401, "unauthenticated", str(error))
        except Forbidden as error:
            return _error(403, "forbidden", str(error))
        except (BadRequest, ConfigError) as error:
            return _error(400, "bad_request", str(error))
        except Overloaded as error:
            return _error(429, "overloaded", str(error), error.after)
        except TooLate:
            return _error(504, "deadline", "the request's time was over before it was answered")
        except EmbedmillError as error:
            self._say(str(error))
            return _error(503, "unavailable", "what answers this cannot be reached now", 1)
        except Exception as error:
            self._say(line := describe(error))
            return _error(500, "fault", line)

    def _seconds(self, request: Request) -> float:
        """How long the request may take: the header can only shorten it."""
        most = self._settings.deadline_seconds
        try:
            asked = float(request.headers.get(TIMEOUT, most))
        except ValueError:
            raise BadRequest(f"{TIMEOUT}: give seconds") from None
        return min(most, asked) if asked > 0 else most

    async def _body(self, request: Request) -> bytes:
        """The whole body, within the limit."""
        most, parts, size = self._settings.body_bytes, [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise Refused(413, "too_large", f"the body is longer than {most:,} bytes (serve.body_bytes)")
            parts.append(part)
        return b"".join(parts)

    def _asked_for(self, request: Request, model: str = "") -> Served:
        """The version that answers: the live one, or that of the space that is asked for, by header or as the model."""
        if (live := self._spaces.live) is None:
            raise Refused(503, "unavailable", "there is no live version of the index yet", 5)
        space = request.headers.get(SPACE)
        if not space and not model:
            return live
        for one in self._spaces.served():
            if space in (None, "", one.space_id) and model in ("", one.model, one.space_id):
                return one
        there = "; ".join(f"space {one.space_id} of model {one.model}" for one in self._spaces.served())
        known = not space or any(space == one.space_id for one in self._spaces.served())
        status, code = (404, "model_not_found") if known else (409, "other_space")
        raise Refused(status, code, f"another space or model is asked for than is served: {there}")

    # -- routes ------------------------------------------------------------------------------------------------------

    async def _embeddings(self, request: Request, grant: Grant, deadline: float) -> Response:
        asked = parse(EmbeddingsRequest, await self._body(request))
        with self._spaces.used(self._asked_for(request, asked.model)) as served:
            vectors, tokens = await self._encoded(served, asked.input, asked.dimensions, grant, deadline)
        rows: list[Any] = list(vectors)
        if asked.encoding_format == "base64":
            rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
        return _answer(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)],
                "model": served.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            },
            served,
        )

    async def _embed(self, request: Request, grant: Grant, deadline: float) -> Response:
        asked = parse(EmbedRequest, await self._body(request))
        with self._spaces.used(self._asked_for(request)) as served:
            vectors, _ = await self._encoded(served, asked.inputs, asked.dimensions, grant, deadline)
        return _answer(vectors, served)

    async def _encoded(
        self, served: Served, given: str | list[str], dimensions: int | None, grant: Grant, deadline: float
    ) -> tuple[Vectors, int]:
        texts = [given] if isinstance(given, str) else given
        if dimensions not in (None, served.dim):
            raise BadRequest(f"dimensions: the space has {served.dim}")
        vectors, tokens = await served.vectors(texts, grant.who, deadline)
        if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            raise Refused(422, "not_encodable", f"the model has no vector for text {bad[0]} (from 0)")
        return vectors, tokens

    async def _search(self, request: Request, grant: Grant, deadline: float) -> Response:
        asked = parse(SearchBodyRequest, await self._body(request))
        team = grant.team(asked.team)
        channels, public = grant.within(asked.channels, asked.public)
        query = Query(
            asked.query,
            team,
            channels,
            asked.kind,
            asked.k,
            asked.mode or self._config.search.mode,
            tuple(asked.authors),
            asked.thread,
            None if asked.since is None else parse_moment(asked.since, "since"),
            None if asked.until is None else parse_moment(asked.until, "until"),
            public,
            tuple(asked.mentions),
            asked.has_file,
            tuple(asked.languages),
        )
        with self._spaces.used(self._asked_for(request)) as served:
            body = await self._found(served, query, asked.rerank, f"{team}\n{grant.who}", deadline)
        return Response(body.to_json(), media_type=_JSON, headers={SPACE: served.space_id})

    async def _found(self, served: Served, query: Query, rerank: bool, who: str, deadline: float) -> SearchBody:
        searcher = served.searcher
        vector = np.zeros(0, np.float32)
        if query.mode != "lexical":
            vectors, _ = await served.vectors([query.text], who, deadline)
            vector = vectors[0]

        def ask() -> SearchBody:
            return search_body(searcher, query, searcher.answer(query, vector, rerank=rerank), self._links)

        return await self._spaces.searches.run(ask, deadline)

    async def _healthy(self, _: Request) -> Response:
        return _answer({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        spaces = [{"space_id": one.space_id, "index": one.version} for one in self._spaces.served()]
        ready = bool(spaces) and not self.draining
        status = "draining" if self.draining else "ok" if ready else "no live version yet"
        body = {"status": status, "spaces": spaces, "index": "lost" if self._spaces.lost else "reached"}
        return _answer(body, status=200 if ready else 503)

    async def _told(self, _: Request) -> Response:
        self._metrics.under_way.set(self._under_way)
        self._metrics.waiting.set(sum(one.waiting_tokens for one in self._spaces.served()))
        return Response(self._metrics.text(), media_type=metrics.CONTENT_TYPE)


def _answer(value: Any, served: Served | None = None, status: int = 200) -> Response:
    headers = {SPACE: served.space_id} if served else None
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, _JSON)


def _error(status: int, code: str, message: str, after: int | None = None) -> Response:
    headers = {} if after is None else {"retry-after": str(after)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    body = {"error": {"message": message, "type": "error", "code": code}}
    return Response(orjson.dumps(body), status, headers, _JSON)
