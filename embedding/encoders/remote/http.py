"""Models behind HTTP: the OpenAI-compatible ``/v1/embeddings``, and text-embeddings-inference's ``/embed``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from embedding.encoders.remote.service import Answer, RefusedInput, TryAgain
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError

_REFUSED = {400, 413, 422}
_DENIED = {401: "denies access", 403: "denies access", 404: "has no such path or model"}
_TOO_MUCH = {429, 529}


class HttpService:
    """One server. The key never leaves the request's header."""

    def __init__(self, settings: RemoteSettings) -> None:
        self.name = f"http {settings.model}"
        self.texts_at_once = settings.request_texts
        self._openai = settings.dialect == "openai"
        self._model = settings.model
        self._url = settings.url.rstrip("/") + ("/v1/embeddings" if self._openai else "/embed")
        key = os.environ.get(settings.api_key_env, "")
        self._key_name = settings.api_key_env
        # They tell each request's address, which may carry a password, and below INFO the answer's headers.
        for library in ("httpx2", "httpcore2"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._client = httpx2.Client(
            timeout=settings.timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=settings.concurrency),
        )

    def close(self) -> None:
        """See Service.close."""
        self._client.close()

    def ask(self, texts: Sequence[str]) -> Answer:
        """See Service.ask. Raises ConfigError where access is denied or the model is not there."""
        body: dict[str, Any] = (
            {"model": self._model, "input": list(texts), "encoding_format": "float"}
            if self._openai
            else {"inputs": list(texts), "truncate": False}
        )
        # Messages of the client's exceptions may hold the address with what stands in it; their types do.
        try:
            response = self._client.post(self._url, json=body)
        except httpx2.TimeoutException as error:
            raise TryAgain(type(error).__name__, throttled=True) from None
        except httpx2.HTTPError as error:
            raise TryAgain(type(error).__name__) from None
        code = response.status_code
        if code in _DENIED:
            raise ConfigError(
                f"model.remote: {self.name} {_DENIED[code]} (HTTP {code}); see url, model, {self._key_name}"
            )
        if code in _REFUSED:
            raise RefusedInput(f"HTTP {code}")
        if code != 200:
            full = code in _TOO_MUCH
            raise TryAgain(f"HTTP {code}", after=_retry_after(response), throttled=code == 503, full=full)
        try:
            return self._answer(response.json(), len(texts))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TryAgain("an answer of another shape") from None

    def _answer(self, body: Any, count: int) -> Answer:
        if not self._openai:
            return Answer(body)
        vectors: list[Any] = [None] * count
        for item in body["data"]:  # each names its text; nothing says that they come in order
            place = item["index"]
            if not 0 <= place < count or vectors[place] is not None:
                raise ValueError("an index that is out of range, or twice there")
            vectors[place] = item["embedding"]
        usage = body.get("usage") or {}
        tokens = usage.get("prompt_tokens", usage.get("total_tokens"))
        return Answer(vectors, None if tokens is None else int(tokens))


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds, from a number or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
