"""How a model is trained: what ``[training]`` says, fixed for one training, so that it can be gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from embedding.errors import ConfigError
from jobs.training.pairs import Pair

Loss = Literal["mnrl", "cached", "gist", "distil", "anchored"]
Precision = Literal["f32", "bf16"]
_SMALL_BATCH = 64  # beside a larger one the activations of all of its texts do not fit


@dataclass(frozen=True, slots=True)
class Budget:
    """What a training may take: tokens that are trained on, and minutes of this process."""

    tokens: int | None = None
    minutes: float | None = None


NO_LIMIT = Budget()


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one training. ``threads`` 0 takes all cores; weights are the same for the same number.

    ``adapter`` is the rank of the adapter that is trained; 0 trains all weights. ``blend`` is the share of the trained
    weights in what is made, the rest is the base's. ``layers`` is how many of the base's layers stay; 0 keeps all.
    ``epsilon`` bounds what the model tells of a thread; 0 promises nothing. ``seeds`` is of how many trainings, each
    with a seed of its own, the weights are the mean. ``precision`` is that of the model's forward pass; weights and
    optimizer are in f32. ``contrast_anchors`` has the losses that compare the pairs of a batch tell anchors from each
    other too.
    """

    loss: Loss
    contrast_anchors: bool
    epochs: int
    batch: int
    max_tokens: int
    learning_rate: float
    warmup: float
    matryoshka: tuple[int, ...]
    seed: int
    threads: int
    max_steps: int
    checkpoint_steps: int
    adapter: int
    blend: float
    layers: int
    epsilon: float
    seeds: int
    precision: Precision

    def each(self) -> list[Recipe]:
        """The trainings of one seed that the mean is of; the first has the recipe's own."""
        return [replace(self, seed=(self.seed + number) % 2**32, seeds=1) for number in range(self.seeds)]

    def digest(self, base: str, pairs: Sequence[Pair]) -> str:
        """What a training is known by: another recipe, base or pair is another training."""
        said = [asdict(self), base, [[pair.anchor, pair.positive, pair.negatives, pair.group] for pair in pairs]]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def loss_for(wanted: str, pairs: Sequence[Pair], batch: int, *, layers: int = 0, epsilon: float = 0) -> Loss:
    """The loss that the data needs, where none is asked for.

    With fewer ``layers`` the base's vectors are learnt, each text by itself; with an ``epsilon`` each pair by itself.

    Texts that many pairs share are false negatives of each other, which the base as a guide leaves out (GIST). A large
    batch is computed in parts (cached). Else multiple negatives as they are.
    """
    if epsilon and wanted != "auto":
        raise ConfigError(
            f"training.epsilon: {wanted} compares a pair with the others of its batch, so that one pair changes the "
            "gradients of all and nothing can be promised of it; leave training.loss out"
        )
    if layers and wanted != "auto":
        raise ConfigError("training.loss: with training.layers the base's vectors are learnt; leave loss out")
    if layers or epsilon:
        return "distil" if layers else "anchored"
    if wanted != "auto":
        if wanted == "mnrl" and batch > _SMALL_BATCH:
            raise ConfigError(f"training.loss: mnrl holds a whole batch at once; {batch} texts need the loss cached")
        return wanted  # type: ignore[return-value]  # the configuration has checked it
    positives = {" ".join(pair.positive.lower().split()) for pair in pairs}
    if len(positives) < 0.9 * len(pairs):
        return "gist"
    return "cached" if batch > _SMALL_BATCH else "mnrl"
