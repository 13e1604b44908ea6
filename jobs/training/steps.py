"""The steps of a training: the batches that a seed draws, and what each leaves in a model's parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.training.pairs import Pair, batches
from jobs.training.private import PrivateSteps, Promise, groups_of, promise
from jobs.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_LONGEST_GRADIENT = 1.0


def steps_of(pairs: Sequence[Pair], recipe: Recipe) -> int:
    """How many steps a training takes, of all of its seeds."""
    if not recipe.epsilon:
        return sum(len(_plan(pairs, one)) for one in recipe.each())
    steps = recipe.epochs * math.ceil(len(groups_of(pairs)) / recipe.batch)
    return min(steps, recipe.max_steps or steps)


def _plan(pairs: Sequence[Pair], recipe: Recipe) -> list[list[int]]:
    """The batches of all epochs, no more than ``max_steps`` (0: all)."""
    found = [batch for epoch in range(recipe.epochs) for batch in batches(pairs, recipe.batch, recipe.seed, epoch)]
    return found[: recipe.max_steps] if recipe.max_steps else found


class Steps:
    """The steps of a seed: which pairs each is of, and the gradients that it leaves in a model's parameters."""

    def __init__(self, pairs: Sequence[Pair], recipe: Recipe, folder: Path):
        self._pairs = pairs
        self.promise: Promise | None = None
        if not recipe.epsilon:
            self.todo = _plan(pairs, recipe)
            return
        groups, count = groups_of(pairs), steps_of(pairs, recipe)
        self.promise = promise(recipe.epsilon, len(groups), recipe.batch, count)
        self._private = PrivateSteps(folder, groups, self.promise)
        self.todo = [[place for group in self._private.drawn(step) for place in group] for step in range(count)]

    def gradients(self, model: SentenceTransformer, loss: Any, step: int) -> int:
        """Returns how many tokens it saw."""
        import torch

        def features_of(places: Sequence[int]) -> list[dict[str, torch.Tensor]]:
            return tokenise(model, [self._pairs[place] for place in places])

        if self.promise is not None:
            return self._private.gradients(model, step, features_of, loss)
        features = features_of(self.todo[step])
        loss(features, None).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _LONGEST_GRADIENT)
        return sum(int(one["attention_mask"].sum()) for one in features)


def tokenise(model: SentenceTransformer, some: Sequence[Pair]) -> list[dict[str, torch.Tensor]]:
    """Token ids by column: anchors, positives, and the first negatives where every pair has one."""
    asks, answers = (model.prompts.get(name) or "" for name in ("query", "document"))
    columns = [[asks + pair.anchor for pair in some], [answers + pair.positive for pair in some]]
    if all(pair.negatives for pair in some):
        columns.append([answers + pair.negatives[0] for pair in some])
    return [
        {name: value.to(model.device) for name, value in model.preprocess(column).items() if hasattr(value, "to")}
        for column in columns
    ]
