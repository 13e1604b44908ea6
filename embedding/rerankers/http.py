"""Rerankers behind HTTP: text-embeddings-inference's ``/rerank``, and Cohere's ``/v2/rerank``.

The time limit is of the whole call: a search waits no longer, whatever the server does meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Literal

import httpx2
import numpy as np
import numpy.typing as npt

from embedding.rerankers.base import NotReranked, checked

Api = Literal["tei", "cohere"]
_PATHS: dict[Api, str] = {"tei": "/rerank", "cohere": "/v2/rerank"}


class HttpReranker:
    """One server. ``token`` goes into the request's header and nowhere else."""

    def __init__(self, url: str, api: Api, *, model: str = "", token: str = "", timeout: float = 2.0) -> None:
        """``timeout`` is in seconds, of a whole call; ``model`` is the server's name of it, for Cohere's API."""
        self.name = f"http {api}" + (f" {model}" if model else "")
        self._api, self._model, self._timeout = api, model, timeout
        base, path = url.rstrip("/"), _PATHS[api]
        self._url = base if base.endswith("/rerank") else base + path
        for library in ("httpx2", "httpcore2"):  # they tell the address, which may carry a password
            logging.getLogger(library).setLevel(logging.WARNING)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.Client(timeout=timeout, headers=headers)

    def scores(self, query: str, texts: Sequence[str], seconds: float | None = None) -> npt.NDArray[np.float64]:
        """See Reranker.scores."""
        answer: list[Any] = []
        limit = self._timeout if seconds is None else min(seconds, self._timeout)
        # A timeout of the client is of each read; a server that sends a byte now and then would pass it for ever.
        asking = threading.Thread(target=self._ask, args=(self._body(query, texts), limit, answer), daemon=True)
        asking.start()
        asking.join(limit)
        if not answer:
            raise NotReranked(f"no answer in {limit:.3g} s")
        if isinstance(answer[0], NotReranked):
            raise answer[0]
        return self._scores(answer[0], len(texts))

    def close(self) -> None:
        """See Reranker.close."""
        self._client.close()

    def _body(self, query: str, texts: Sequence[str]) -> dict[str, object]:
        if self._api == "tei":
            return {"query": query, "texts": list(texts), "truncate": True}
        return {"model": self._model, "query": query, "documents": list(texts), "top_n": len(texts)}

    def _ask(self, body: dict[str, object], limit: float, answer: list[Any]) -> None:
        try:
            response = self._client.post(self._url, json=body, timeout=limit)
            if response.status_code == 200:
                answer.append(response.json())
            else:
                answer.append(NotReranked(f"HTTP {response.status_code}"))
        except httpx2.TimeoutException:
            answer.append(NotReranked(f"no answer in {limit:.3g} s"))
        except ValueError:
            answer.append(NotReranked("an answer of another shape"))
        except Exception as error:  # its message may hold the address, with what stands in it
            answer.append(NotReranked(type(error).__name__))

    def _scores(self, body: Any, count: int) -> npt.NDArray[np.float64]:
        """Scores by the text's place: a service answers in the order of its scores."""
        scores = np.full(count, np.nan)
        try:
            for item in body if self._api == "tei" else body["results"]:
                place = item["index"]
                if not isinstance(place, int) or not 0 <= place < count or not np.isnan(scores[place]):
                    raise ValueError("an index that is out of range, or twice there")
                scores[place] = float(item["score" if self._api == "tei" else "relevance_score"])
        except (KeyError, TypeError, ValueError):
            raise NotReranked("an answer of another shape") from None
        return checked(scores, count)
