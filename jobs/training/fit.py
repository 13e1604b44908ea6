"""The training itself: a loop over batches that can be killed at any moment and goes on with the same weights.

The model, its losses, the optimizer and the schedule are libraries'; the loop is ours because each step draws from a
seed of its own, so that going on after a checkpoint is the training that was not disturbed. A checkpoint holds weights
and moments of the optimizer, and no text.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embedding.atomic_file import flush
from embedding.errors import BudgetError, ConfigError
from jobs.training.adapter import adapt, merged
from jobs.training.distil import Distillation, keep_layers
from jobs.training.measures import load
from jobs.training.pairs import Pair
from jobs.training.private import Anchored, Promise
from jobs.training.recipe import NO_LIMIT, Budget, Precision, Recipe
from jobs.training.steps import Steps, tokenise

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

CHECKPOINT = "checkpoint.pt"
_PART = 32  # texts that the cached losses compute at once
_DECAY = 0.01


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


def fit(  # noqa: PLR0913, PLR0917  (one caller, which has them all)
    base: Path,
    pairs: Sequence[Pair],
    recipe: Recipe,
    folder: Path,
    tell: Callable[[int], None],
    budget: Budget = NO_LIMIT,
) -> Fitted:
    """Train a copy of the model in ``base`` and save it in ``folder``/model; ``tell`` gets the steps done.

    With several seeds, what is saved has the mean of the weights that each of them comes to (Wortsman et al., Model
    soups, 2022). Goes on from the checkpoint in ``folder``, which is of the same training, and leaves it there. Raises
    ConfigError for ``training.matryoshka`` of more numbers than the model's vectors have; BudgetError before the first
    step where it would take too many tokens, and with a checkpoint where it has taken its minutes.
    """
    import torch

    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    each = [(one, Steps(pairs, one, folder)) for one in recipe.each()]
    run = _Run(folder / CHECKPOINT, recipe, sum(len(steps.todo) for _, steps in each), tell, budget)
    _check(base, pairs, recipe, [batch for _, steps in each for batch in steps.todo], budget)
    for one, steps in each[run.seeds :]:
        torch.manual_seed(one.seed)
        model = _begun(base, recipe)
        longest = _shorten(model, recipe)
        loss = _loss(model, base, recipe)
        if recipe.adapter:
            adapt(model, recipe.adapter)
        with _computing_in(recipe.precision, model):
            run.train(model, one, steps, loss)
        model.max_seq_length = longest
        made = merged(model, _begun(base, recipe), folder) if recipe.adapter else model
        run.add(made)
    if recipe.blend < 1:
        _weigh(made, dict(_begun(base, recipe).named_parameters()), recipe.blend)
    # Without the card, which would hold texts of the training.
    made.save_pretrained(str(folder / "model"), create_model_card=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    places = frozenset(place for _, steps in each for batch in steps.todo for place in batch)
    return Fitted(places, run.steps, run.tokens, round(run.seconds, 3), round(peak, 1), each[0][1].promise)


class _Run:
    """How far a training has come, which its checkpoint holds.

    ``mean`` is of the weights of the ``seeds`` that are done, by name; ``steps`` are of all seeds. The seconds are of
    this process and of those that it goes on from.
    """

    def __init__(self, file: Path, recipe: Recipe, steps: int, tell: Callable[[int], None], budget: Budget):
        import torch

        self._file, self._recipe, self._whole, self._tell, self._budget = file, recipe, steps, tell, budget
        self._begun = time.monotonic()
        saved = torch.load(file, map_location="cpu", weights_only=True) if file.exists() else {}
        self.seeds, self._step, self.steps, self.tokens, self._former = saved.get("told", (0, 0, 0, 0, 0.0))
        self.mean: dict[str, torch.Tensor] = saved.get("mean", {})
        self._parts = saved.get("parts", [])

    @property
    def seconds(self) -> float:
        return self._former + time.monotonic() - self._begun

    def train(self, model: SentenceTransformer, recipe: Recipe, steps: Steps, loss: Any) -> None:
        """All steps of one seed that are not behind the checkpoint."""
        import torch
        from transformers import get_linear_schedule_with_warmup

        count = len(steps.todo)
        optimizer = torch.optim.AdamW(_groups(model), lr=recipe.learning_rate)
        schedule = get_linear_schedule_with_warmup(optimizer, round(recipe.warmup * count), count)
        parts = (model, optimizer, schedule)
        for part, state in zip(parts, self._parts, strict=False):  # none at a seed's beginning
            part.load_state_dict(state)
        self._parts = []
        model.train()
        for step in range(self._step, count):
            torch.manual_seed(recipe.seed * 1_000_003 + step)  # of its dropout
            self.tokens += steps.gradients(model, loss, step)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            self.steps += 1
            self._tell(self.steps)
            self._keep(step + 1, parts)
        model.eval()
        self._step = 0

    def _keep(self, step: int, parts: Sequence[Any]) -> None:
        """Write a checkpoint where one is due; raise BudgetError behind it where the minutes are over."""
        minutes = self._budget.minutes
        over = minutes is not None and time.monotonic() - self._begun >= minutes * 60
        if self.steps == self._whole or not over and step % self._recipe.checkpoint_steps:
            return
        self._save(step, parts)
        if over:
            raise BudgetError(
                f"--max-minutes: {self.steps:,} of {self._whole:,} steps are done; the same command goes on from "
                "there, as long as its pairs are the same"
            )

    def add(self, made: SentenceTransformer) -> None:
        """Leave a model the mean of its weights and those of the seeds before, and keep it for the seeds to come."""
        if self.seeds:
            _weigh(made, self.mean, 1 / (self.seeds + 1))
        self.seeds += 1
        if self.seeds < self._recipe.seeds:
            self.mean = {name: weights.detach().cpu().clone() for name, weights in made.named_parameters()}
            self._save(0, ())

    def _save(self, step: int, parts: Sequence[Any]) -> None:
        import torch

        part = self._file.with_suffix(".part")
        told = (self.seeds, step, self.steps, self.tokens, self.seconds)
        torch.save({"told": told, "mean": self.mean, "parts": [one.state_dict() for one in parts]}, part)
        flush(part)
        part.replace(self._file)


def _check(base: Path, pairs: Sequence[Pair], recipe: Recipe, todo: Sequence[list[int]], budget: Budget) -> None:
    """Raise what ``fit`` says of a recipe that the model cannot have, and of too many tokens."""
    if not recipe.matryoshka and budget.tokens is None:
        return
    model = _begun(base, recipe)
    dim = model.get_embedding_dimension() or 0
    if any(not 0 < one <= dim for one in recipe.matryoshka):
        raise ConfigError(f"training.matryoshka: give numbers from 1 to {dim}, which the model's vectors have")
    if budget.tokens is None:
        return
    _shorten(model, recipe)
    batched = (tokenise(model, [pairs[place] for place in batch]) for batch in todo if batch)
    whole = sum(int(one["attention_mask"].sum()) for features in batched for one in features)
    if whole > budget.tokens:
        raise BudgetError(f"--max-tokens: {whole:,} would be trained on; allow more, or set training.max_steps")


def _shorten(model: SentenceTransformer, recipe: Recipe) -> int | None:
    """Cut texts as the recipe says; returns where the model cuts them else."""
    longest: int | None = model.max_seq_length
    model.max_seq_length = min(recipe.max_tokens, longest or recipe.max_tokens)  # the model has no place for more
    return longest


@contextmanager
def _computing_in(precision: Precision, model: SentenceTransformer) -> Iterator[None]:
    """Compute the model's vectors in that precision; it is around the forward pass, which the cached losses repeat."""
    import torch

    if precision == "bf16":
        forward = torch.autocast(model.device.type, torch.bfloat16)(model.forward)

        def in_f32(*given: Any, **named: Any) -> dict[str, torch.Tensor]:
            found = forward(*given, **named)
            return {**found, "sentence_embedding": found["sentence_embedding"].float()}  # losses are in f32

        model.__dict__["forward"] = in_f32
    yield
    model.__dict__.pop("forward", None)


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
    elif recipe.loss == "gist":
        made = losses.CachedGISTEmbedLoss(
            model, load(base), mini_batch_size=_PART, contrast_anchors=recipe.contrast_anchors
        )
    else:
        apart: tuple[Literal["query_to_doc", "query_to_query"], ...] = ("query_to_doc",)
        if recipe.contrast_anchors:
            apart += ("query_to_query",)
        if recipe.loss == "mnrl":
            made = losses.MultipleNegativesRankingLoss(model, directions=apart)
        else:
            made = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=_PART, directions=apart)
    return losses.MatryoshkaLoss(model, made, list(recipe.matryoshka)) if recipe.matryoshka else made


def _weigh(made: SentenceTransformer, others: Mapping[str, torch.Tensor], share: float) -> None:
    """Leave a model the ``share`` of its weights, and take the rest of ``others``, by name.

    Between a base and what it was tuned to a model keeps more of what the base knew and tells less of its pairs
    (Wortsman et al., Robust fine-tuning of zero-shot models, 2022).
    """
    import torch

    with torch.no_grad():
        for name, weights in made.named_parameters():
            weights.lerp_(others[name].to(weights.device), 1 - share)


def _groups(model: SentenceTransformer) -> list[dict[str, Any]]:
    """Parameters with weight decay, and those without: biases and what normalises."""
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    plain = [one for name, one in named if one.ndim < 2]
    return [
        {"params": [one for _, one in named if one.ndim >= 2], "weight_decay": _DECAY},
        {"params": plain, "weight_decay": 0.0},
    ]
