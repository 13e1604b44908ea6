"""Differential privacy of a training: each thread is bounded and drowned in noise that nobody can know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from embedding.errors import ConfigError
from embedding.models.weights import tensors_digest, weight_files
from jobs.training.fit import fit
from jobs.training.measures import load
from jobs.training.pairs import Pair, read_pairs
from jobs.training.private import ORDERS, Anchored, PrivateSteps, Promise, groups_of, promise
from jobs.training.steps import steps_of
from tests.support.model_families import FAMILIES
from tests.support.trainings import RECIPE, written
from tests.support.workspace import Workspace

PRIVATE = replace(RECIPE, loss="anchored", epsilon=8.0, batch=8)


def quiet(rate: float, noise: float = 0.0) -> Promise:
    return Promise(8.0, 1e-3, noise, rate, 6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["bert"](tmp_path_factory.mktemp("base") / "tiny")


def steps(model: Any, pairs: list[Pair], folder: Path, told: Promise) -> tuple[PrivateSteps, list[torch.Tensor]]:
    """The gradients of step 0 over pairs of texts."""
    made = PrivateSteps(folder, groups_of(pairs), told)
    model.train()
    torch.manual_seed(0)
    model.zero_grad()

    def features(group: Any) -> Any:
        some = [pairs[place] for place in group]
        return [model.preprocess([one.anchor for one in some]), model.preprocess([one.positive for one in some])]

    made.gradients(model, 0, features, Anchored(model, load(Path(model.model_card_data.base_model or ""))))
    return made, [one.grad.clone() for one in model.parameters() if one.grad is not None]


@pytest.mark.parametrize("without", [slice(0, 2), slice(14, 16)], ids=["the first", "the last"])
def test_one_group_moves_a_step_by_no_more_than_the_bound(base: Path, tmp_path: Path, without: slice) -> None:
    """With and without it, and nothing else different: the sum of the gradients differs by at most 1, the bound."""
    pairs = [replace(pair, group=str(number // 2)) for number, pair in enumerate(read_pairs(written(tmp_path, 16)))]
    fewer = [pair for place, pair in enumerate(pairs) if place not in range(16)[without]]
    model = load(base)
    model.model_card_data.base_model = str(base)
    whole, less = (steps(model, some, tmp_path, quiet(1.0))[1] for some in (pairs, fewer))
    moved = torch.sqrt(
        sum(((a * 8 - b * 7).square().sum() for a, b in zip(whole, less, strict=True)), torch.tensor(0.0))
    )
    assert 0 < float(moved) <= 1 + 1e-4


def test_noise_is_of_the_promised_size_and_its_secret_is_of_the_training(base: Path, tmp_path: Path) -> None:
    pairs, model = read_pairs(written(tmp_path, 16)), load(base)
    model.model_card_data.base_model = str(base)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    calm = steps(model, pairs, folders[0], quiet(1.0))[1]
    loud, again, other = (steps(model, pairs, folder, quiet(1.0, 3.0))[1] for folder in (*folders[:1], *folders))
    noise = torch.cat([(a - b).flatten() for a, b in zip(loud, calm, strict=True)]) * 16
    assert abs(float(noise.std()) - 3.0) < 0.1 and abs(float(noise.mean())) < 0.1
    assert all(torch.equal(a, b) for a, b in zip(loud, again, strict=True)), "a killed training goes on with the same"
    assert not any(torch.equal(a, b) for a, b in zip(loud, other, strict=True)), "another has noise of its own"
    assert (folders[0] / "noise.secret").stat().st_mode & 0o077 == 0


def test_groups_are_drawn_each_by_itself(tmp_path: Path) -> None:
    made = PrivateSteps(tmp_path, [[n] for n in range(1_000)], quiet(0.1))
    drawn = [len(made.drawn(step)) for step in range(200)]
    assert 95 < sum(drawn) / 200 < 105 and len(set(drawn)) > 20, "a fixed number would be another mathematics"
    assert made.drawn(3) == made.drawn(3) != made.drawn(4)


def test_what_no_noise_can_promise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.epsilon: no noise is enough for 1e-05"):
        promise(1e-5, 5_000, 32, 157)


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_the_accountant_agrees_that_the_promise_holds(epsilon: float) -> None:
    from opacus.accountants import RDPAccountant

    told = promise(epsilon, 1_000, 32, 90)
    accountant = RDPAccountant()
    accountant.history = [(told.noise, told.rate, told.steps)]
    assert 0.9 * epsilon < accountant.get_epsilon(delta=told.delta, alphas=ORDERS) <= epsilon
    assert told.delta == 1e-4 and promise(epsilon, 1_000, 32, 900).noise > told.noise


@pytest.mark.parametrize("adapter", [0, 4])
def test_a_private_training_that_dies_goes_on_to_the_same_weights(base: Path, tmp_path: Path, adapter: int) -> None:
    pairs = read_pairs(written(tmp_path))
    recipe = replace(PRIVATE, adapter=adapter)

    class Killed(BaseException):
        pass

    def dies(step: int) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(base, pairs, recipe, tmp_path, dies)
    secret = (tmp_path / "noise.secret").read_bytes()
    told = fit(base, pairs, recipe, tmp_path, lambda _: None)
    assert told.steps == steps_of(pairs, recipe) == 10 and told.promise is not None and told.promise.noise > 0
    calm = tmp_path / "calm"
    calm.mkdir()
    (calm / "noise.secret").write_bytes(secret)
    fit(base, pairs, recipe, calm, lambda _: None)
    assert len({tensors_digest(weight_files(folder / "model")) for folder in (tmp_path, calm)}) == 1


def test_the_card_says_what_was_promised_and_nobody_keeps_the_secret(tiny: Workspace) -> None:
    tiny.config.write_text(f"{tiny.config.read_text()}epsilon = 8.0\n")
    done = tiny.call("train", "--pairs", str(written(tiny.root)), "--name", "chat")
    assert done.code == 0 and done.body["promise"]["epsilon"] == 8.0 and 0 < done.body["promise"]["delta"] < 0.01, done
    assert not list(tiny.root.rglob("noise.secret"))
    card = (tiny.root / "registry" / "chat" / "1" / "card.json").read_text()
    assert '"promise"' in card and '"epsilon"' in card
    for more, fault in (
        ('loss = "mnrl"\n', "training.epsilon: mnrl compares a pair"),
        ("hard_negatives = true\n", "training: hard_negatives"),
    ):
        text = tiny.config.read_text()
        tiny.config.write_text(text + more)
        refused = tiny.call("train", "--pairs", str(written(tiny.root)), "--name", "chat")
        tiny.config.write_text(text)
        assert refused.code == 2 and fault in refused.err, refused
