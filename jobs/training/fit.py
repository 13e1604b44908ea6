"""The training itself: a loop over batches that can be killed at any moment and goes on with the same weights.

The model, its losses, the optimizer and the schedule are libraries'; the loop is ours because each step draws from a
seed of its own, so that going on after a checkpoint is the training that was not disturbed. A checkpoint holds weights
and moments of the optimizer, and no text.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding.atomic_file import flush
from embedding.errors import BudgetError, ConfigError
from jobs.training.adapter import adapt, merged
from jobs.training.distil import Distillation, keep_layers
from jobs.training.measures import load
from jobs.training.pairs import Pair, batches
from jobs.training.private import Anchored, PrivateSteps, Promise, groups_of, promise
from jobs.training.recipe import NO_LIMIT, Budget, Recipe

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

CHECKPOINT = "checkpoint.pt"
_PART = 32  # texts that the cached losses compute at once
_DECAY = 0.01
_LONGEST_GRADIENT = 1.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training took: ``seconds`` and ``tokens`` of this process and of those that it went on from.

    ``places`` are those of the pairs that were trained on: the last steps may be left out, and a pair that is alone.
    """

    places: frozenset[int]
    steps: int
    tokens: int
    seconds: float
    peak_mb: float
    promise: Promise | None


def steps_of(pairs: Sequence[Pair], recipe: Recipe) -> int:
    """How many steps a training takes."""
    if not recipe.epsilon:
        return len(_plan(pairs, recipe))
    steps = recipe.epochs * math.ceil(len(groups_of(pairs)) / recipe.batch)
    return min(steps, recipe.max_steps or steps)


def _plan(pairs: Sequence[Pair], recipe: Recipe) -> list[list[int]]:
    """The batches of all epochs, no more than ``max_steps`` (0: all)."""
    found = [batch for epoch in range(recipe.epochs) for batch in batches(pairs, recipe.batch, recipe.seed, epoch)]
    return found[: recipe.max_steps] if recipe.max_steps else found


def fit(  # noqa: PLR0913, PLR0917  (one caller, which has them all)
    base: Path,
    pairs: Sequence[Pair],
    recipe: Recipe,
    folder: Path,
    tell: Callable[[int], None],
    budget: Budget = NO_LIMIT,
) -> Fitted:
    """Train a copy of the model in ``base`` and save it in ``folder``/model; ``tell`` gets the steps done.

    Goes on from the checkpoint in ``folder``, which is of the same training, and leaves it there. Raises ConfigError
    for ``training.matryoshka`` of more numbers than the model's vectors have; BudgetError before the first step where
    it would take too many tokens, and with a checkpoint where it has taken its minutes.
    """
    import torch
    from transformers import get_linear_schedule_with_warmup

    begun = time.monotonic()
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    torch.manual_seed(recipe.seed)
    model = _begun(base, recipe)
    longest = model.max_seq_length
    model.max_seq_length = min(recipe.max_tokens, longest or recipe.max_tokens)  # the model has no place for more
    dim = model.get_embedding_dimension() or 0
    if any(not 0 < one <= dim for one in recipe.matryoshka):
        raise ConfigError(f"training.matryoshka: give numbers from 1 to {dim}, which the model's vectors have")
    loss = _loss(model, base, recipe)
    steps = _Steps(model, pairs, recipe, loss, folder)
    todo = steps.todo
    _check_tokens(model, pairs, todo, budget)
    if recipe.adapter:
        adapt(model, recipe.adapter)
    optimizer = torch.optim.AdamW(_groups(model), lr=recipe.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, round(recipe.warmup * len(todo)), len(todo))
    file = folder / CHECKPOINT
    done, tokens, seconds = _load(file, model, optimizer, schedule)
    model.train()
    for step in range(done, len(todo)):
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # of its dropout
        tokens += steps.gradients(step)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tell(step + 1)
        spent = time.monotonic() - begun
        over = budget.minutes is not None and spent >= budget.minutes * 60
        if (over or (step + 1) % recipe.checkpoint_steps == 0) and step + 1 < len(todo):
            _save(file, model, optimizer, schedule, (step + 1, tokens, seconds + spent))
            if over:
                raise BudgetError(
                    f"--max-minutes: {step + 1:,} of {len(todo):,} steps are done; the same command goes on from "
                    "there, as long as its pairs are the same"
                )
    model.eval()
    model.max_seq_length = longest
    made = merged(model, _begun(base, recipe), folder) if recipe.adapter else model
    if recipe.blend < 1:
        _blend(made, _begun(base, recipe), recipe.blend)
    # Without the card, which would hold texts of the training.
    made.save_pretrained(str(folder / "model"), create_model_card=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    places = frozenset(place for batch in todo for place in batch)
    took = round(seconds + time.monotonic() - begun, 3)
    return Fitted(places, len(todo), tokens, took, round(peak, 1), steps.promise)


class _Steps:
    """The steps of a training: which pairs each is of, and the gradients that it leaves in the model's parameters."""

    def __init__(self, model: SentenceTransformer, pairs: Sequence[Pair], recipe: Recipe, loss: Any, folder: Path):
        self._model, self._pairs, self._loss = model, pairs, loss
        self.promise: Promise | None = None
        if not recipe.epsilon:
            self.todo = _plan(pairs, recipe)
            return
        groups, count = groups_of(pairs), steps_of(pairs, recipe)
        self.promise = promise(recipe.epsilon, len(groups), recipe.batch, count)
        self._private = PrivateSteps(folder, groups, self.promise)
        self.todo = [[place for group in self._private.drawn(step) for place in group] for step in range(count)]

    def gradients(self, step: int) -> int:
        """Returns how many tokens it saw."""
        import torch

        if self.promise is not None:
            return self._private.gradients(self._model, step, self._of, self._loss)
        features = self._of(self.todo[step])
        self._loss(features, None).backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), _LONGEST_GRADIENT)
        return sum(int(one["attention_mask"].sum()) for one in features)

    def _of(self, places: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        return _features(self._model, [self._pairs[place] for place in places])


def _check_tokens(model: SentenceTransformer, pairs: Sequence[Pair], todo: Sequence[list[int]], budget: Budget) -> None:
    if budget.tokens is None:
        return
    batched = (_features(model, [pairs[place] for place in batch]) for batch in todo if batch)
    whole = sum(int(one["attention_mask"].sum()) for features in batched for one in features)
    if whole > budget.tokens:
        raise BudgetError(f"--max-tokens: {whole:,} would be trained on; allow more, or set training.max_steps")


def _begun(base: Path, recipe: Recipe) -> SentenceTransformer:
    """What a training begins with: the base, or so many of its layers."""
    model = load(base)
    if recipe.layers:
        keep_layers(model, recipe.layers)
    return model


def _loss(model: SentenceTransformer, base: Path, recipe: Recipe) -> Any:
    from sentence_transformers.sentence_transformer import losses

    if recipe.loss == "distil":
        made: Any = Distillation(model, load(base))
    elif recipe.loss == "anchored":
        made = Anchored(model, load(base))
    elif recipe.loss == "mnrl":
        made = losses.MultipleNegativesRankingLoss(model)
    elif recipe.loss == "cached":
        made = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=_PART)
    else:
        made = losses.CachedGISTEmbedLoss(model, load(base), mini_batch_size=_PART)
    return losses.MatryoshkaLoss(model, made, list(recipe.matryoshka)) if recipe.matryoshka else made


def _blend(made: SentenceTransformer, begun: SentenceTransformer, share: float) -> None:
    """Weigh the trained weights with those that they began from.

    Between the two a model keeps more of what the base knew and tells less of its pairs (Wortsman et al., Robust
    fine-tuning of zero-shot models, 2022).
    """
    import torch

    former = dict(begun.named_parameters())
    with torch.no_grad():
        for name, weights in made.named_parameters():
            weights.lerp_(former[name], 1 - share)


def _groups(model: SentenceTransformer) -> list[dict[str, Any]]:
    """Parameters with weight decay, and those without: biases and what normalises."""
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    plain = [one for name, one in named if one.ndim < 2]
    return [
        {"params": [one for _, one in named if one.ndim >= 2], "weight_decay": _DECAY},
        {"params": plain, "weight_decay": 0.0},
    ]


def _features(model: SentenceTransformer, some: Sequence[Pair]) -> list[dict[str, torch.Tensor]]:
    """Token ids by column: anchors, positives, and the first negatives where every pair has one."""
    asks, answers = (model.prompts.get(name) or "" for name in ("query", "document"))
    columns = [[asks + pair.anchor for pair in some], [answers + pair.positive for pair in some]]
    if all(pair.negatives for pair in some):
        columns.append([answers + pair.negatives[0] for pair in some])
    return [
        {name: value.to(model.device) for name, value in model.preprocess(column).items() if hasattr(value, "to")}
        for column in columns
    ]


def _save(file: Path, model: Any, optimizer: Any, schedule: Any, told: tuple[int, int, float]) -> None:
    import torch

    part = file.with_suffix(".part")
    said = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    torch.save({**said, "told": told}, part)
    flush(part)
    part.replace(file)


def _load(file: Path, model: Any, optimizer: Any, schedule: Any) -> tuple[int, int, float]:
    import torch

    if not file.exists():
        return 0, 0, 0.0
    said = torch.load(file, map_location=str(model.device), weights_only=True)
    model.load_state_dict(said["model"])
    optimizer.load_state_dict(said["optimizer"])
    schedule.load_state_dict(said["schedule"])
    step, tokens, seconds = said["told"]
    return int(step), int(tokens), float(seconds)


def negatives_of(pairs: Sequence[Pair], anchors: Any, positives: Any, *, margin: float) -> Iterator[Pair]:
    """Give each pair the hardest text that does not answer it: the nearest one below ``margin`` times its own answer.

    ``anchors`` and ``positives`` are their vectors by the base, shape (pairs, dim), of length 1. A text of the pair's
    own group is never taken, nor one that is nearer: it may answer, too.
    """
    import numpy as np

    groups = np.unique([pair.group for pair in pairs], return_inverse=True)[1]
    own = (anchors * positives).sum(axis=1)
    block = max(1, 20_000_000 // max(1, len(pairs)))
    for start in range(0, len(pairs), block):
        scores = anchors[start : start + block] @ positives.T
        stop = start + len(scores)
        scores[scores >= margin * own[start:stop, None]] = -2
        scores[groups[start:stop, None] == groups[None, :]] = -2
        best = scores.argmax(axis=1)
        for row, place in enumerate(best):
            pair = pairs[start + row]
            taken = (pairs[place].positive,) if scores[row, place] > -2 and not pair.negatives else pair.negatives
            yield Pair(pair.anchor, pair.positive, taken, pair.group, pair.at, pair.seen)
