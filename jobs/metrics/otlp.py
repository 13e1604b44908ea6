"""The same series over OTLP, and what the GenAI conventions ask of an embedding client: durations and tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from jobs.metrics.collect import Sample
from jobs.metrics.series import BY_NAME, PREFIX
from jobs.telemetry.observed import take
from jobs.telemetry.tracing import resource, speaks_grpc, within_seconds

if TYPE_CHECKING:
    from opentelemetry.metrics import Observation

# The bounds that the conventions advise, in seconds and in tokens; those of the library are of milliseconds.
SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0]


def send(samples: Iterable[Sample], index: str) -> bool:
    """Send the series of an index and what was observed; False where nobody took them in time."""
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(_exporter(), export_interval_millis=3_600_000)
    provider = MeterProvider([reader], resource(), shutdown_on_exit=False)
    meter = provider.get_meter("embedmill")
    told: defaultdict[str, list[Observation]] = defaultdict(list)
    for sample in samples:
        labels = dict(zip(BY_NAME[sample.name].labels, sample.labels, strict=True))
        told[sample.name].append(Observation(float(sample.value), {"index": index, **labels}))
    for name, observations in told.items():
        series = BY_NAME[name]
        create = meter.create_observable_counter if series.counts else meter.create_observable_gauge
        create(PREFIX + name, [_always(observations)], description=series.about)
    duration = meter.create_histogram(
        "gen_ai.client.operation.duration", "s", explicit_bucket_boundaries_advisory=SECONDS
    )
    usage = meter.create_histogram("gen_ai.client.token.usage", "{token}", explicit_bucket_boundaries_advisory=TOKENS)
    for one in take():
        duration.record(one.seconds, one.attributes)
        usage.record(one.tokens, {**one.attributes, "gen_ai.token.type": "input"})
    return within_seconds(lambda: bool(provider.force_flush(5_000)), provider.shutdown)


def _always(observations: Sequence[Observation]) -> Callable[[object], Sequence[Observation]]:
    """What a meter asks when it collects."""
    return lambda _: observations


def _exporter() -> Any:
    if speaks_grpc("metrics"):
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    return Http()
