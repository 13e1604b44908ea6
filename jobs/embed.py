"""Embed: encode the plan's texts with a pool of Ray actors and store the vectors, shard by shard.

A shard is committed to ``vectors`` as soon as its actor has written it: a killed run loses the shards under way and
no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.engines import start_ray
from jobs.state import Part, State, write_part

if TYPE_CHECKING:
    from jobs.config import Config


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """What an actor needs: picklable, no secrets."""

    root: str
    model: str
    backend: str
    threads: int
    batch_tokens: int
    space_id: str
    run_id: str


class EmbedShard:
    """A Ray Data actor: loads the encoder once, then turns shards of texts into files of vectors."""

    def __init__(self, setup: ShardWriter) -> None:
        from embedding.encoders import open_encoder

        self._setup = setup
        self._encoder = open_encoder(
            setup.backend, Path(setup.model), threads=setup.threads, batch_tokens=setup.batch_tokens
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Encode the shards whose paths come in ``path``; give back their parts, texts and tokens."""
        parts, texts, tokens = [], [], []
        for path in batch["path"]:
            # partitioning=None: "shard=3" in the path is not a column of the texts
            shard = pq.read_table(str(path), partitioning=None)
            lengths = shard["tokens"].to_numpy()
            vectors = self._encoder.encode(shard["text"].to_pylist(), lengths)
            width = vectors.shape[1]
            column = pa.ListArray.from_arrays(
                pa.array(range(0, vectors.size + 1, width), pa.int32()), pa.array(vectors.reshape(-1), pa.float32())
            )
            rows = pa.table(
                {
                    "space_id": pa.array([self._setup.space_id] * len(shard)),
                    "team_id": shard["team_id"],
                    "content_hash": shard["content_hash"],
                    "vector": column,
                    "run_id": pa.array([self._setup.run_id] * len(shard)),
                }
            )
            written = write_part(self._setup.root, "vectors", rows)
            parts.append("\n".join(part.to_json() for part in written))
            texts.append(len(shard))
            tokens.append(int(lengths.sum()))
        return {"parts": parts, "texts": texts, "tokens": tokens}


def embed(
    config: Config, state: State, model: Path, *, run_id: str, space_id: str,
    before_commit: Callable[[], None], progress: Callable[[int], None],
) -> int:  # fmt: skip
    """Encode every shard of the run's plan. Returns the number of texts encoded.

    ``before_commit`` is called ahead of each commit and may raise; ``progress`` is told the tokens of each shard.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    folder = state.work(run_id) / "texts"
    shards = sorted(folder.glob("shard=*"), key=lambda p: int(p.name.removeprefix("shard=")))
    start_ray(config)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    actors = min(config.model.actors, len(shards))
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= actors else 0
    threads = config.model.threads or max(1, cores // actors)
    setup = ShardWriter(
        str(state.root), str(model), config.model.backend, threads, config.model.batch_tokens, space_id, run_id
    )
    vectors = ray.data.from_items([{"path": str(s)} for s in shards], override_num_blocks=len(shards)).map_batches(
        EmbedShard,
        fn_constructor_args=(setup,),
        batch_size=1,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=cores / actors if not gpus else 1,
        num_gpus=gpus or None,
    )
    done = 0
    for row in vectors.iter_rows():
        before_commit()
        state.append("vectors", [Part.from_json(line) for line in row["parts"].splitlines()])
        done += int(row["texts"])
        progress(int(row["tokens"]))
    return done
