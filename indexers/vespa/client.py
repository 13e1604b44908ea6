"""The conversation with Vespa: documents over HTTP/2 with a bounded number in flight, visits, queries, and retries.

Wraps pyvespa's clients: every request is sent again, with backoff, for as long as Vespa says that it is busy, full or
away, and every failure becomes one line that holds no text of a document. Knows documents and nothing of an index.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

import httpr
from requests.exceptions import HTTPError
from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential
from vespa.application import Vespa, VespaAsync, VespaSync
from vespa.exceptions import VespaError
from vespa.io import VespaResponse

from embedding.errors import ConfigError, ResourceError
from indexers.vespa.strings import storable

# As many as pyvespa's own feeder has: one thread each, and more of them gain nothing under one interpreter lock.
IN_FLIGHT = 64
# A feed waits while the cluster is over its limits or being restarted; a read is waited for by a person.
FEED_SECONDS = 300.0
READ_SECONDS = 10.0
LONGEST_PAUSE = 10.0  # between two attempts
REQUEST_SECONDS = 30.0
QUERY_SECONDS = 10.0
VISIT_DOCUMENTS = 1_000
# Too many requests, no container or content node up, no answer in time, content cluster out of memory or disk.
BUSY = (429, 502, 503, 504, 507)
_MEANING = {
    401: "the token or certificate was refused",
    403: "the token or certificate was refused",
    429: "too many requests",
    503: "not available",
    504: "no answer in time",
    507: "the content cluster is out of memory or disk",
}


class RefusedError(ConfigError):
    """Vespa calls the request wrong: as a rule, what is deployed is not what the request is for."""


class _Application(Vespa):
    """pyvespa's connection, with every character of an id in its place in the path."""

    def get_document_v1_path(
        self,
        id: str,
        schema: str | None = None,
        namespace: str | None = None,
        group: str | None = None,
        number: str | None = None,
    ) -> str:
        """As pyvespa's own, which leaves slashes as they are: two of them in a row are not a path to Vespa."""
        return f"/document/v1/{namespace}/{schema}/docid/{quote(id, safe='')}"


class VespaClient:
    """A connection to one container, for documents of one namespace and one content cluster.

    Raises ConfigError for another address than http(s) and for certificates that cannot be read.
    """

    def __init__(
        self, uri: str, *, namespace: str, cluster: str, token: str = "", cert: str = "", key: str = ""
    ) -> None:
        if not re.match(r"https?://[^/]", uri):
            raise ConfigError("index.uri: give the address of Vespa's container, http(s)://host:port")
        self.shown = "Vespa at " + re.sub(r"//[^/@]*@", "//", uri)
        self._namespace, self._cluster = namespace, cluster
        try:
            self._app = _Application(
                uri.rstrip("/"), vespa_cloud_secret_token=token or None, cert=cert or None, key=key or None
            )
            session = self._app.get_async_session(timeout=REQUEST_SECONDS, max_concurrency=IN_FLIGHT)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"index.tls_cert, index.tls_key: {type(error).__name__}: {str(error)[:200]}") from None
        # pyvespa declares httpx's client, which httpr's has replaced.
        self._http = cast(httpr.AsyncClient, session)

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    # -- documents ---------------------------------------------------------------------------------------------------

    def put(
        self,
        kind: str,
        documents: Iterable[tuple[str, dict[str, Any]]],
        condition: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> list[str]:
        """Write documents (id and fields); returns the ids of those whose condition did not hold.

        A condition is asked of the document that is there, and one that is not there is created.
        """

        async def send(session: VespaAsync, item: tuple[str, dict[str, Any]]) -> str | None:
            key, fields = item
            asked: dict[str, Any] = {"condition": condition(fields), "create": "true"} if condition else {}
            done = await session.feed_data_point(kind, storable(key), fields, self._namespace, **asked)
            if done.status_code == 412:
                return key
            self._check(done, f"writing to {kind}")
            return None

        return [key for key in self._all(send, documents, FEED_SECONDS) if key is not None]

    def remove(self, kind: str, keys: Iterable[str]) -> None:
        """Remove documents by id; unknown ones are no error."""

        async def send(session: VespaAsync, key: str) -> None:
            self._check(await session.delete_data(kind, storable(key), self._namespace), f"deleting from {kind}")

        self._all(send, keys, FEED_SECONDS)

    def get(self, kind: str, keys: Sequence[str], fields: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Read documents by id, all fields or some; those that are not there are absent from the result."""
        field_set: dict[str, Any] = {"fieldSet": f"{kind}:{','.join(fields)}"} if fields else {}

        async def send(session: VespaAsync, key: str) -> tuple[str, dict[str, Any]] | None:
            found = await session.get_data(kind, storable(key), self._namespace, **field_set)
            if found.status_code == 404:
                return None
            self._check(found, f"reading from {kind}")
            return key, found.json.get("fields", {})

        return dict(found for found in self._all(send, keys, READ_SECONDS) if found is not None)

    def visit(self, kind: str, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield all documents of a type, page by page, with some of their fields."""
        at: dict[str, str] = {}
        with self._app.syncio(connections=1, num_retries_429=0) as session:
            while True:
                page = self._visit_page(session, kind, {"fieldSet": f"{kind}:{','.join(fields)}", **at})
                documents = [document["fields"] for document in page.get("documents", [])]
                if documents:
                    yield documents
                if not page.get("continuation"):
                    return
                at = {"continuation": page["continuation"]}

    def empty(self, kind: str) -> None:
        """Remove all documents of a type, by selection."""
        try:
            with self._app.syncio(connections=1) as session:
                session.delete_all_docs(self._cluster, kind, self._namespace)
        except (VespaError, HTTPError, httpr.RequestError) as error:
            raise self._failed(f"deleting everything from {kind}", error) from None

    def query(self, body: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Search; an answer that does not cover all documents is an error. Raises ResourceError."""

        async def send(session: VespaAsync, asked: Mapping[str, Any]) -> VespaResponse:
            return await session.query(
                {"timeout": f"{QUERY_SECONDS:g}s", **asked}, retry_policy=cast(AsyncRetrying, _Patience(READ_SECONDS))
            )

        (found,) = self._all(send, [body], READ_SECONDS)
        root = found.json.get("root", {})
        if found.status_code != 200 or root.get("errors"):
            message = "; ".join(str(error.get("message", "")) for error in root.get("errors", []))
            # Of a search by words the message may quote the words.
            raise self._refused(found.status_code, what, "" if "words" in body else message)
        if not root.get("coverage", {}).get("full", True):
            raise ResourceError(f"{self.shown}: {what}: only a part of the documents could be searched; try again")
        return dict(root)

    def version(self) -> str:
        """Vespa's own version, or nothing where it does not say."""
        session = self._app.get_sync_session()
        try:
            answer = session.get(f"{self._app.end_point}/ApplicationStatus", timeout=READ_SECONDS)
            return str(answer.json()["application"]["vespa"]["version"])
        except (httpr.RequestError, KeyError, ValueError, TypeError, RuntimeError):
            return ""
        finally:
            session.close()

    # -- sending -----------------------------------------------------------------------------------------------------

    def _all(
        self, send: Callable[[VespaAsync, Any], Awaitable[Any]], items: Iterable[Any], seconds: float
    ) -> list[Any]:
        """Send something for each item, at most IN_FLIGHT at a time; one that has to wait keeps its place."""
        todo, results = iter(items), []

        async def work(session: VespaAsync) -> None:
            for item in todo:
                results.append(await send(session, item))

        async def run() -> None:
            session = self._app.asyncio(
                client=self._http, compress=False, docv1_retry_policy=_Patience(seconds), timeout=REQUEST_SECONDS
            )
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(IN_FLIGHT, len(items)) if isinstance(items, Sequence) else IN_FLIGHT):
                    workers.create_task(work(session))

        try:
            asyncio.run(run())
        except ExceptionGroup as group:
            failure = group.exceptions[0]
            if isinstance(failure, httpr.RequestError):
                raise self._failed("no connection", failure) from None
            raise failure from None
        return results

    def _visit_page(self, session: VespaSync, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        def page() -> dict[str, Any]:
            pages = next(
                session.visit(
                    self._cluster, kind, self._namespace, wanted_document_count=VISIT_DOCUMENTS, slice_id=0, **params
                )
            )
            return dict(next(pages).json)

        retries = Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, httpr.RequestError) or _status(e) in BUSY),
            stop=stop_after_delay(READ_SECONDS),
            wait=wait_random_exponential(0.2, max=LONGEST_PAUSE),
            reraise=True,
        )
        try:
            return retries(page)
        except (VespaError, HTTPError, httpr.RequestError) as error:
            raise self._failed(f"reading all of {kind}", error) from None

    # -- failures ----------------------------------------------------------------------------------------------------

    def _check(self, answer: VespaResponse, what: str) -> None:
        if answer.status_code != 200:
            # The message of a refused write may quote the document.
            quotes = answer.operation_type in ("feed", "update")
            raise self._refused(answer.status_code, what, "" if quotes else str(answer.json.get("message", "")))

    def _refused(self, status: int, what: str, message: str) -> ConfigError | ResourceError:
        text = " ".join(message.split())[:200]
        line = f"{self.shown}: {what}: HTTP {status}{f', {_MEANING[status]}' if status in _MEANING else ''}"
        kind = {400: RefusedError, 401: ConfigError, 403: ConfigError}.get(status, ResourceError)
        return kind(f"{line}: {text}" if text else line)

    def _failed(self, what: str, error: BaseException) -> ConfigError | ResourceError:
        status = _status(error)
        if status is not None:
            return self._refused(status, what, str(error))
        return ResourceError(f"{self.shown}: {what} ({type(error).__name__})")


def _status(error: BaseException | None) -> int | None:
    """The answer that pyvespa made an error of, if there was one: it hangs on one of the error's causes."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


class _Patience:
    """Sends again while the connection fails or Vespa is busy; then the last answer or exception stands.

    A policy as pyvespa takes one, that is copied for each request. tenacity's, which it is made for, takes a quarter of
    the time of a feed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def copy(self) -> _Patience:
        """It keeps nothing of a request."""
        return self

    async def __call__(self, send: Callable[[], Awaitable[VespaResponse]]) -> VespaResponse:
        """Send until there is an answer to keep."""
        deadline, pause = time.monotonic() + self._seconds, 0.2
        while True:
            late = time.monotonic() >= deadline
            try:
                answer = await send()
            except httpr.RequestError:
                if late:
                    raise
            else:
                if late or answer.status_code not in BUSY:
                    return answer
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(LONGEST_PAUSE, 2 * pause)
