"""The routes: bodies in, bodies out, and which refusal is which status. Texts and tokens are never told to anybody."""

from __future__ import annotations

import asyncio
import base64
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from embedding.errors import ConfigError, EmbedmillError
from jobs.bodies.answers import SearchBody
from jobs.search.permalinks import Permalinks
from jobs.search.search_body import search_body
from jobs.search.searcher import Query
from jobs.serve import metrics
from jobs.serve.access import Access, Forbidden, Grant, Unauthenticated
from jobs.serve.answers import JSON, SPACE, Refused, answered, error_answer, not_there, only
from jobs.serve.batcher import WAIT, Overloaded, TooLate
from jobs.serve.gate import Gate
from jobs.serve.requests import BadRequest, EmbeddingsRequest, EmbedRequest, SearchBodyRequest, parse
from jobs.serve.reranks import Reranks
from jobs.serve.spaces import Served, Spaces
from jobs.telemetry import request_tracing
from jobs.telemetry.error_reporting import describe

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline
    from jobs.serve.batcher import Counts, Vectors

TIMEOUT = "x-embedmill-timeout"
ROUTES = ("/v1/embeddings", "/embed", "/search")
_CLIENT_LEFT = 499  # no status of HTTP: the client went away before its body had come
_TINY = 1e-30  # so that the vector 0 stays what it is
Handler = Callable[[Request, Grant, float], Awaitable[Response]]


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
        self._busy = error_answer(429, "overloaded", str(Overloaded(1)), 1)
        self._reranks = Reranks(self._settings.searches, self._settings.deadline_seconds, told.not_reranked, say)

    def app(self, life: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None) -> Starlette:
        """The ASGI application; ``life`` is entered before its first request, and left after its last."""
        app = Starlette(
            routes=[
                Route("/v1/embeddings", self._answering("/v1/embeddings", self._embeddings), methods=["POST"]),
                Route("/embed", self._answering("/embed", self._embed), methods=["POST"]),
                Route("/search", self._answering("/search", self._search), methods=["POST"]),
                Route("/healthz", self._healthy),
                Route("/readyz", self._ready),
                Route("/metrics", self._told),
            ],
            middleware=[Middleware(Gate, self._refusal)],
            exception_handlers={HTTPException: not_there},
            lifespan=life,
        )
        app.router.redirect_slashes = False  # the address of a redirect would be the one that the client has named
        return app

    # -- frame -------------------------------------------------------------------------------------------------------

    def _refusal(self, path: str, headers: Headers) -> Response | None:
        """The answer to a request that finds no place, or would hardly be answered in time by the version it is for.

        A body that names the model of another version is not read here; that version's queue refuses it.
        """
        space, late = headers.get(SPACE), WAIT * self._settings.deadline_seconds
        asked = [one for one in self._spaces.served() if one.space_id == space] if space else [self._spaces.live]
        if self._under_way < self._settings.requests and all(o is None or o.wait_seconds() <= late for o in asked):
            return None
        self._metrics.requests.labels(path if path in ROUTES else "other", "429").inc()
        return self._busy

    def _answering(self, route: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            self._under_way += 1
            try:
                with request_tracing.request(f"POST {route}", request.headers) as tell:
                    response = await self._guarded(request, handler)
                    tell(route, response.status_code, response.headers.get(SPACE, ""))
            finally:
                self._under_way -= 1
            self._metrics.requests.labels(route, str(response.status_code)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
            return response

        return answer

    async def _guarded(self, request: Request, handler: Handler) -> Response:
        try:
            headers = request.headers
            grant = self._access.grant(only(headers, "authorization"), only(headers, "host"))
            return await handler(request, grant, time.monotonic() + self._seconds(request))
        except Refused as error:
            return error_answer(error.status, error.code, str(error), error.after)
        except Unauthenticated as error:
            return error_answer(401, "unauthenticated", str(error))
        except Forbidden as error:
            return error_answer(403, "forbidden", str(error))
        except (BadRequest, ConfigError) as error:
            return error_answer(400, "bad_request", str(error))
        except Overloaded as error:
            return error_answer(429, "overloaded", str(error), error.after)
        except TooLate:
            return error_answer(504, "deadline", "the request's time was over before it was answered")
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)  # it is counted, and nobody reads it
        except EmbedmillError as error:
            self._say(str(error))
            return error_answer(503, "unavailable", "what answers this cannot be reached now", 1)
        except Exception as error:
            self._say(line := describe(error))
            return error_answer(500, "fault", line)

    def _seconds(self, request: Request) -> float:
        """How long the request may take: the header can only shorten it."""
        most = self._settings.deadline_seconds
        try:
            asked = float(request.headers.get(TIMEOUT, most))
        except ValueError:
            asked = math.nan
        if not math.isfinite(asked):
            raise BadRequest(f"{TIMEOUT}: give seconds")
        if asked <= 0:
            raise TooLate
        return min(most, asked)

    async def _body(self, request: Request, deadline: float) -> bytes:
        """The whole body, within the limit and the request's time."""
        most, parts, size = self._settings.body_bytes, [], 0
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "unsupported_encoding", "content-encoding: send the body as it is, without one")
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise Refused(413, "too_large", f"the body is longer than {most:,} bytes (serve.body_bytes)")
                    parts.append(part)
        except TimeoutError:
            if TIMEOUT in request.headers:  # the client has given up, whatever has come
                raise TooLate from None
            raise Refused(408, "deadline", "the request's time was over before its body had come") from None
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
        asked = parse(EmbeddingsRequest, await self._body(request, deadline))
        with self._spaces.used(self._asked_for(request, asked.model)) as served:
            vectors, counts = await self._encoded(served, asked.input, asked.dimensions, grant, deadline)
        tokens = int(counts.sum())
        rows: list[Any] = list(vectors)
        if asked.encoding_format == "base64":
            rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
        return answered(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)],
                "model": served.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            },
            served.space_id,
        )

    async def _embed(self, request: Request, grant: Grant, deadline: float) -> Response:
        asked = parse(EmbedRequest, await self._body(request, deadline))
        with self._spaces.used(self._asked_for(request)) as served:
            encoder = served.encoder
            if asked.normalize is False and encoder.normalised:
                raise BadRequest("normalize: the space has no vectors but those of length 1")
            vectors, tokens = await self._encoded(served, asked.inputs, asked.dimensions, grant, deadline)
            if not asked.truncate and len(long := np.flatnonzero(tokens > encoder.max_tokens)):
                what = f"text {long[0]} (from 0) has more than {encoder.max_tokens} tokens"
                raise Refused(413, "too_large", f"inputs: {what}, and truncate is false")
            if asked.normalize and not encoder.normalised:
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
        return answered(vectors, served.space_id)

    async def _encoded(
        self, served: Served, texts: list[str], dimensions: int | None, grant: Grant, deadline: float
    ) -> tuple[Vectors, Counts]:
        if dimensions not in (None, served.dim):
            raise BadRequest(f"dimensions: the space has {served.dim}")
        return await self._vectors(served, texts, grant.memory(), deadline)

    async def _vectors(
        self, served: Served, texts: list[str], who: str | None, deadline: float
    ) -> tuple[Vectors, Counts]:
        """As Served.vectors; Refused where a text has none."""
        with request_tracing.step("encode queries", gen_ai__operation__name="embeddings", embedmill__texts=len(texts)):
            vectors, tokens = await served.vectors(texts, who, deadline)
        if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            raise Refused(422, "not_encodable", f"the model has no vector for text {bad[0]} (from 0)")
        return vectors, tokens

    async def _search(self, request: Request, grant: Grant, deadline: float) -> Response:
        asked = parse(SearchBodyRequest, await self._body(request, deadline))
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
            asked.since,
            asked.until,
            public,
            tuple(asked.mentions),
            asked.has_file,
            tuple(asked.languages),
        )
        with self._spaces.used(self._asked_for(request)) as served:
            body = await self._found(served, query, asked.rerank, grant.memory(team), deadline)
        return Response(body.to_json(), media_type=JSON, headers={SPACE: served.space_id})

    async def _found(self, served: Served, query: Query, rerank: bool, who: str | None, deadline: float) -> SearchBody:
        searcher = served.searcher
        vector = np.zeros(0, np.float32)
        if query.mode != "lexical":
            vectors, _ = await self._vectors(served, [query.text], who, deadline)
            vector = vectors[0]

        def ask() -> SearchBody:
            if rerank and (reranking := searcher.reranking) is not None:
                hits = searcher.hits(query, vector, reranking.wanted(query.k))
                answer = self._reranks.answer(reranking, query, hits, deadline)
            else:
                answer = searcher.answer(query, vector, rerank=False)
            return search_body(searcher, query, answer, self._links)

        with request_tracing.step("search the index", db__operation__name="search", embedmill__mode=query.mode):
            return await self._spaces.searches.run(ask, deadline)

    async def _healthy(self, _: Request) -> Response:
        return answered({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        spaces = [{"space_id": one.space_id, "index": one.version} for one in self._spaces.served()]
        ready = bool(spaces) and not self.draining
        status = "draining" if self.draining else "ok" if ready else "no live version yet"
        body = {"status": status, "spaces": spaces, "index": "lost" if self._spaces.lost else "reached"}
        return answered(body, status=200 if ready else 503)

    async def _told(self, _: Request) -> Response:
        self._metrics.under_way.set(self._under_way)
        self._metrics.waiting.set(sum(one.waiting_tokens for one in self._spaces.served()))
        return Response(self._metrics.text(), media_type=metrics.CONTENT_TYPE)
