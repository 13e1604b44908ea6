"""What Prometheus is told of serving, at ``/metrics``. No label has a team, a token or a text."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_PREFIX = "embedmill_serve_"


class ServeMetrics:
    """The series of one process."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self.requests = Counter(
            f"{_PREFIX}requests", "Requests, by route and status.", ("route", "code"), registry=self._all
        )
        self.seconds = Histogram(
            f"{_PREFIX}request_duration_seconds",
            "From first to last byte.",
            ("route",),
            buckets=_SECONDS,
            registry=self._all,
        )
        self.under_way = Gauge(f"{_PREFIX}requests_under_way", "Requests that are being answered.", registry=self._all)
        self._batches = Histogram(
            f"{_PREFIX}batch_texts", "Texts that were encoded together.", buckets=_TEXTS, registry=self._all
        )
        self._tokens = Counter(f"{_PREFIX}encoded_tokens", "Tokens that were encoded.", registry=self._all)
        self._cached = Counter(f"{_PREFIX}cached_queries", "Queries that were remembered.", registry=self._all)
        self._not_reranked = Counter(
            f"{_PREFIX}rerank_failures", "Searches that were not reranked, and should have been.", registry=self._all
        )
        self._cutovers = Counter(
            f"{_PREFIX}cutovers", "How often another version became the live one.", registry=self._all
        )
        self._info = Gauge(f"{_PREFIX}space_info", "What answers: 1.", ("space_id", "version"), registry=self._all)
        self.waiting = Gauge(f"{_PREFIX}waiting_tokens", "Tokens that wait for the encoder.", registry=self._all)

    def batch(self, texts: int, tokens: int) -> None:
        """A batch was encoded."""
        self._batches.observe(texts)
        self._tokens.inc(tokens)

    def cached(self, texts: int) -> None:
        """So many queries were remembered."""
        self._cached.inc(texts)

    def not_reranked(self) -> None:
        """A search was answered in the order of the index, as its reranker failed."""
        self._not_reranked.inc()

    def cut_over(self) -> None:
        """Another version is the live one."""
        self._cutovers.inc()

    def served(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Spaces and versions that answer."""
        self._info.clear()
        for pair in pairs:
            self._info.labels(*pair).set(1)

    def text(self) -> bytes:
        """All series, in Prometheus' text format."""
        return generate_latest(self._all)
