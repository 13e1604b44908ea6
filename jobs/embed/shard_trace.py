"""Tells telemetry of a shard that a worker encoded, by the attributes of OpenTelemetry's GenAI conventions.

The names are ours to keep: those that the library has for them are deprecated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.telemetry.observed import Embedded, observe
from jobs.telemetry.tracing import past

if TYPE_CHECKING:
    from jobs.embed.stored_shard import StoredShard

OPERATION = "embeddings"


def trace_shard(shard: StoredShard, model: str, dim: int) -> None:
    """A span of the shard within the step, and one below it for each request to a service."""
    timing = shard.timing
    provider = str(timing["encoder"]).split(" ")[0]
    common = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
    }
    above = past(
        f"{OPERATION} {model}",
        (timing["began"], timing["ended"]),
        within="embed",
        attributes={
            **common,
            "gen_ai.usage.input_tokens": shard.tokens,
            "gen_ai.embeddings.dimension.count": dim,
            "embedmill.shard": shard.name,
            "embedmill.texts": shard.texts,
            "embedmill.texts_left_out": len(shard.failed),
            "host.name": timing["host"],
            "process.pid": timing["pid"],
        },
    )
    if above is not None:
        for began, ended, texts, fault, endpoint in timing["requests"]:
            attributes = {**common, "embedmill.texts": texts, "embedmill.endpoint": endpoint}
            past(
                f"{OPERATION} {model}",
                (began, ended),
                within=above,
                kind="client",
                error=fault,
                attributes=attributes,
            )
    observe(Embedded((timing["ended"] - timing["began"]) / 1e9, shard.tokens, common))
