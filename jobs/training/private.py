"""Differential privacy of a training (Abadi et al., Deep Learning with Differential Privacy, 2016).

Each step draws threads at random, bounds what each may change, and adds noise. What the model tells of whether a
thread was among them is then bounded by epsilon, whoever looks at the weights, however often. The unit is a group: all
pairs of a thread. A loss must see each group by itself: one that compares the pairs of a batch would let a group into
the gradients of the others.

Which groups are drawn and what noise is added must be known to nobody. Both come from a secret that lies beside the
checkpoint, so that a killed training goes on with the same, and goes with it when the training ends. There is no
dropout: its masks come from one source, and one group more would change those of all that follow.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding.errors import ConfigError
from jobs.training.pairs import Pair

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    Features = list[dict[str, torch.Tensor]]

ORDERS = [1 + n / 10 for n in range(1, 100)] + [*range(11, 64), 80, 128, 256, 512]  # of the accountant's moments
_SECRET = "noise.secret"
_CLIP = 1.0  # the longest gradient of a group


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised of a training: ``noise`` is the standard deviation in lengths of the longest gradient.

    ``rate`` is the chance of a group to be drawn in a step.
    """

    epsilon: float
    delta: float
    noise: float
    rate: float
    steps: int


def promise(epsilon: float, groups: int, batch: int, steps: int) -> Promise:
    """The noise that ``epsilon`` takes. The chance that it does not hold is a tenth of one in ``groups``."""
    try:
        from opacus.accountants.utils import get_noise_multiplier
    except ModuleNotFoundError:
        raise ConfigError("training.epsilon: needs an accountant; pip install 'embedmill[private]'") from None
    rate, delta = min(1.0, batch / groups), 1 / (10 * groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its search begins with more noise than these orders are for
        try:
            noise = get_noise_multiplier(
                target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, alphas=ORDERS
            )
        except ValueError:
            raise ConfigError(f"training.epsilon: no noise is enough for {epsilon:g}; promise less") from None
    return Promise(epsilon, delta, float(noise), rate, steps)


def groups_of(pairs: Sequence[Pair]) -> list[list[int]]:
    """Places of pairs by their group."""
    found: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        found.setdefault(pair.group, []).append(place)
    return list(found.values())


class PrivateSteps:
    """Draws and noise of a training in ``folder``, from a secret that is made there by the first try."""

    def __init__(self, folder: Path, groups: Sequence[Sequence[int]], told: Promise) -> None:
        self._groups, self._told = groups, told
        file = folder / _SECRET
        if not file.exists():
            part = file.with_suffix(".part")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
                sink.write(secrets.token_bytes(32))
                os.fsync(sink.fileno())
            part.replace(file)
        self._secret = file.read_bytes()

    def drawn(self, step: int) -> list[Sequence[int]]:
        """The groups of a step; each is drawn by itself, so that there may be none."""
        taken = self._source(step, "draw").random(len(self._groups)) < self._told.rate
        return [group for group, drawn in zip(self._groups, taken, strict=True) if drawn]

    def gradients(
        self, model: SentenceTransformer, step: int, features_of: Callable[[Sequence[int]], Features], loss: Any
    ) -> int:
        """Leave the bounded and noised mean gradient of a step in the parameters; returns how many tokens it saw."""
        import torch

        model.eval()
        weights = [one for one in model.parameters() if one.requires_grad]
        whole = [torch.zeros_like(one) for one in weights]
        tokens = 0
        for group in self.drawn(step):
            features = features_of(group)
            tokens += sum(int(one["attention_mask"].sum()) for one in features)
            found = torch.autograd.grad(loss(features, None), weights, allow_unused=True)
            length = torch.sqrt(sum((one.square().sum() for one in found if one is not None), torch.tensor(0.0)))
            share = float(torch.clamp(_CLIP / (length + 1e-12), max=1.0))
            for place, one in enumerate(found):
                if one is not None:
                    whole[place].add_(one, alpha=share)
        source = self._source(step, "noise")
        expected = max(1.0, self._told.rate * len(self._groups))
        for one, gradient in zip(weights, whole, strict=True):
            noise = torch.from_numpy(source.standard_normal(tuple(gradient.shape), np.float32)).to(gradient)
            one.grad = gradient.add_(noise, alpha=self._told.noise * _CLIP).div_(expected)
        return tokens

    def _source(self, step: int, use: str) -> np.random.Generator:
        """Numbers of a step from 128 bits of the secret: torch's own source on a CPU takes 32 bits of its seed."""
        said = hashlib.blake2b(f"{use} {step}".encode(), key=self._secret, digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(said)))


class Anchored:
    """A loss that sees each pair by itself: its texts come nearer, and stay about where the base has them."""

    def __init__(self, model: SentenceTransformer, base: SentenceTransformer) -> None:
        self._model, self._base = model, base.eval()

    def __call__(self, features: Features, _: None) -> torch.Tensor:
        """One less the cosine of each pair, and one less those with the base's vectors, on average."""
        import torch
        from torch.nn.functional import cosine_similarity

        asked, said = (self._model(dict(one))["sentence_embedding"] for one in features[:2])
        with torch.no_grad():
            began = [self._base(dict(one))["sentence_embedding"] for one in features[:2]]
        moved = (cosine_similarity(asked, began[0]) + cosine_similarity(said, began[1])) / 2
        return (2 - cosine_similarity(asked, said) - moved).mean()
