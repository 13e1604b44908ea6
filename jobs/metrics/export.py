"""Tells Prometheus: a Pushgateway, a folder that node-exporter's textfile collector reads, an endpoint of OTLP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.metrics.collect import Sample, collect
from jobs.metrics.series import PREFIX, SERIES
from jobs.telemetry.tracing import enabled

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from jobs.pipeline import Pipeline

JOB = "embedmill"


def export(pipeline: Pipeline, *, lease_refused: bool = False) -> Iterator[str]:
    """Send what the state says, where the configuration asks for it. Yields a line for each place that took nothing.

    Each place gets all series anew, so that what is gone is gone there too.
    """
    target = pipeline.config.telemetry
    if not target.pushgateway and not target.textfile and not enabled("metrics"):
        return
    samples = list(collect(pipeline, lease_refused=lease_refused))
    instance = target.instance or pipeline.config.index.name
    if enabled("metrics"):
        from jobs.metrics.otlp import send

        try:
            taken = send(samples, instance)
        except Exception:  # of a setting that the library does not take, or without the library
            taken = False
        if not taken:
            yield "OTEL_EXPORTER_OTLP_ENDPOINT: it took no metrics; the run is not affected"
    if not target.pushgateway and not target.textfile:
        return
    from prometheus_client import push_to_gateway, write_to_textfile

    registry = registry_of(samples, instance)
    if target.pushgateway:
        try:
            push_to_gateway(target.pushgateway, JOB, registry, {"instance": instance}, timeout=target.timeout)
        except Exception as error:  # of whatever HTTP stack; its text may hold an address with a password
            yield f"telemetry.pushgateway: it took no metrics ({type(error).__name__}); the run is not affected"
    if target.textfile:
        folder: Path = pipeline.config.path(target.textfile)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"embedmill-{instance}.prom" if target.instance else "embedmill.prom"
            write_to_textfile(str(folder / name), registry)
        except OSError as error:
            yield f"telemetry.textfile: cannot write to {folder}: {error.strerror}; the run is not affected"


def registry_of(samples: Iterable[Sample], index: str) -> CollectorRegistry:
    """A registry with these samples of an index. Raises KeyError for a series that is not one of ours."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        one.name: (CounterMetricFamily if one.counts else GaugeMetricFamily)(
            PREFIX + one.name, one.about, labels=("index", *one.labels)
        )
        for one in SERIES
    }
    for sample in samples:
        families[sample.name].add_metric((index, *sample.labels), sample.value)

    class Given:
        def collect(self) -> Iterator[Metric]:
            yield from (family for family in families.values() if family.samples)

    registry = CollectorRegistry()
    registry.register(Given())  # of it this method is used
    return registry
