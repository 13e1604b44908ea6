"""The loop of a training: seeds, precision, and going on from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer import losses

from embedding.models.weights import tensors_digest, weight_files
from jobs.training.fit import fit
from jobs.training.measures import encode, load
from jobs.training.pairs import read_pairs
from jobs.training.recipe import Recipe
from jobs.training.steps import steps_of
from tests.support.model_families import FAMILIES
from tests.support.trainings import RECIPE, written


class Killed(BaseException):
    """In place of the signal."""


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPE, seeds=3, epochs=1), replace(RECIPE, seeds=2, adapter=4, precision="bf16")]
)
def test_a_training_that_dies_at_any_step_goes_on_to_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    base, pairs = FAMILIES["bert"](tmp_path / "tiny"), read_pairs(written(tmp_path))
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    killed.mkdir()
    undisturbed = fit(base, pairs, recipe, calm, lambda _: None)
    reached = 0

    def tell(step: int) -> None:
        nonlocal reached
        if step > reached + 3:  # it dies at a step that no earlier try came to
            reached = step
            raise Killed

    for _ in range(20):
        try:
            done = fit(base, pairs, recipe, killed, tell)
            break
        except Killed:
            continue
    assert reached > steps_of(pairs, recipe) - 5
    assert len({tensors_digest(weight_files(folder / "model")) for folder in (calm, killed)}) == 1
    assert tensors_digest(weight_files(calm / "model")) != tensors_digest(weight_files(base))
    assert replace(done, seconds=0, peak_mb=0) == replace(undisturbed, seconds=0, peak_mb=0)


@pytest.mark.parametrize("adapter", [0, 4])
def test_weights_of_several_seeds_are_the_mean_of_those_of_each(adapter: int, tmp_path: Path) -> None:
    base, pairs = FAMILIES["bert"](tmp_path / "tiny"), read_pairs(written(tmp_path))
    recipe = replace(RECIPE, adapter=adapter, seed=2**32 - 2, seeds=3, max_steps=4, blend=0.5)
    steps: list[int] = []
    made, told = [], []
    for one in (recipe, *recipe.each()):
        folder = tmp_path / f"{one.seed}-{one.seeds}"
        folder.mkdir()
        told.append(fit(base, pairs, one, folder, steps.append))
        made.append({name: weights.detach() for name, weights in load(folder / "model").named_parameters()})
    assert [one.seed for one in recipe.each()] == [2**32 - 2, 2**32 - 1, 0]
    assert steps == [*range(1, 13), *range(1, 5), *range(1, 5), *range(1, 5)]
    assert told[0].steps == steps_of(pairs, recipe) == 12
    assert told[0].tokens == sum(one.tokens for one in told[1:])
    assert told[0].places == frozenset().union(*(one.places for one in told[1:])) > told[1].places
    apart = 0
    for name, mean in made[0].items():
        each = [one[name] for one in made[1:]]
        apart += bool((each[0] != each[1]).any())
        assert np.allclose(mean, sum(each) / 3, atol=1e-6), name
    assert apart > 3


@pytest.mark.parametrize("loss", ["mnrl", "cached", "gist", "distil", "anchored"])
def test_bf16_is_of_the_forward_pass_alone(loss: Any, tmp_path: Path) -> None:
    """Also where a loss repeats it; weights, gradients and what is saved are in f32."""
    base, pairs = FAMILIES["bert"](tmp_path / "tiny"), read_pairs(written(tmp_path))
    texts = [pair.positive for pair in pairs]
    vectors = [encode(load(base), texts, "document")]
    for precision in ("f32", "bf16"):
        folder = tmp_path / precision
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            widths = watched(patch)
            fit(base, pairs, replace(RECIPE, loss=loss, precision=precision), folder, lambda _: None)
        assert widths == {torch.bfloat16 if precision == "bf16" else torch.float32}
        made = load(folder / "model")
        assert {one.dtype for one in made.parameters()} == {torch.float32}
        vectors.append(encode(made, texts, "document"))
    start, exact, rough = vectors
    assert 0 < np.abs(exact - rough).max() < 0.2 * np.abs(exact - start).max()


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("loss", ["mnrl", "cached", "gist"])
def test_anchors_are_told_from_each_other_where_that_is_asked_for(loss: Any, contrast: bool, tmp_path: Path) -> None:
    """The library's own words for it; a model of random weights learns too little to see it by."""
    names = {"mnrl": "MultipleNegativesRankingLoss", "cached": "CachedMultipleNegativesRankingLoss"}
    made = getattr(losses, names.get(loss, "CachedGISTEmbedLoss"))
    base, pairs = FAMILIES["bert"](tmp_path / "tiny"), read_pairs(written(tmp_path))
    recipe = replace(RECIPE, loss=loss, contrast_anchors=contrast, max_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        asked: list[dict[str, Any]] = []
        begin = made.__init__

        def seen(self: Any, *given: Any, **named: Any) -> None:
            asked.append(named)
            begin(self, *given, **named)

        patch.setattr(made, "__init__", seen)
        fit(base, pairs, recipe, tmp_path, lambda _: None)
    if loss == "gist":
        assert [one["contrast_anchors"] for one in asked] == [contrast]
    else:
        both = ("query_to_doc", "query_to_query")
        assert [one["directions"] for one in asked] == [both if contrast else both[:1]]


def watched(patch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The types of what the trained model's linear layers make, as long as gradients are taken."""
    found: set[torch.dtype] = set()
    forward = torch.nn.Linear.forward

    def seen(layer: torch.nn.Linear, given: torch.Tensor) -> torch.Tensor:
        made = forward(layer, given)
        if made.requires_grad:
            found.add(made.dtype)
        return made

    patch.setattr(torch.nn.Linear, "forward", seen)
    return found
