"""What Prometheus is told of serving, at ``/metrics``. No label has a team, a token or a text.

Alerts, dashboards and other programs go by the names: add, never rename.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from jobs.config import Config

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "embedmill_serve_"
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Series(NamedTuple):
    """``about`` is its help; one with ``buckets`` is a histogram, one in ``_total`` a counter, another a gauge.

    Beside its labels each has ``index``, and of Ray Serve ``replica``.
    """

    name: str
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SERIES = (
    Series("requests_total", "Requests, by route and status.", ("route", "code")),
    Series("request_duration_seconds", "From first to last byte, of what found a place.", ("route",), _SECONDS),
    Series("requests_under_way", "Requests that are being answered."),
    Series("waiting_tokens", "Tokens that wait for the encoder."),
    Series("batch_texts", "Texts that were encoded together.", buckets=_TEXTS),
    Series("encoded_tokens_total", "Tokens that were encoded."),
    Series("cached_queries_total", "Queries that were remembered, and not encoded."),
    Series("rerank_failures_total", "Searches that were not reranked, and should have been."),
    Series("cutovers_total", "How often another version became the live one."),
    Series("space_info", "What answers: 1.", ("space_id", "version")),
    Series("index_reached", "1 where the newest look found the index and could open what is live in it, else 0."),
)
_BY_NAME = {one.name: one for one in SERIES}


class ServeMetrics:
    """The series of one process. ``replica`` tells those of one address apart: Ray Serve answers with any of them."""

    def __init__(self, config: Config, replica: str = "") -> None:
        self._all = CollectorRegistry()
        constant = {"index": config.telemetry.instance or config.index.name}
        self._shown = _Labelled(self._all, constant | ({"replica": replica} if replica else {}))
        self.requests = self._counter("requests_total")
        self.seconds = self._histogram("request_duration_seconds")
        self.under_way = self._gauge("requests_under_way")
        self.waiting = self._gauge("waiting_tokens")
        self.reached = self._gauge("index_reached")
        self._batches = self._histogram("batch_texts")
        self._tokens = self._counter("encoded_tokens_total")
        self._cached = self._counter("cached_queries_total")
        self._not_reranked = self._counter("rerank_failures_total")
        self._cutovers = self._counter("cutovers_total")
        self._info = self._gauge("space_info")

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
        return generate_latest(self._shown)

    def _counter(self, name: str) -> Counter:
        return Counter(PREFIX + name, _BY_NAME[name].about, _BY_NAME[name].labels, registry=self._all)

    def _gauge(self, name: str) -> Gauge:
        return Gauge(PREFIX + name, _BY_NAME[name].about, _BY_NAME[name].labels, registry=self._all)

    def _histogram(self, name: str) -> Histogram:
        of = _BY_NAME[name]
        return Histogram(PREFIX + name, of.about, of.labels, buckets=of.buckets, registry=self._all)


class _Labelled(Collector):
    """The same series, each with some labels more: they are added when somebody looks, not with each request."""

    def __init__(self, of: Collector, labels: Mapping[str, str]) -> None:
        self._of, self._labels = of, labels

    def collect(self) -> Iterator[Metric]:
        """Each family, without the times at which its series began."""
        for family in self._of.collect():
            kept = (one for one in family.samples if not one.name.endswith("_created"))
            family.samples = [one._replace(labels={**self._labels, **one.labels}) for one in kept]
            yield family
