"""Models that cost less, or keep more of their base: fewer layers, and weights between the two."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.encoders.choose import choose, open_encoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError
from embedding.models.space import describe_space
from jobs.bodies.models import TrainBody
from jobs.cli.render_models import trained
from jobs.training.distil import keep_layers
from jobs.training.fit import fit
from jobs.training.measures import encode, load
from jobs.training.pairs import read_pairs
from tests.support.model_families import FAMILIES
from tests.support.trainings import RECIPE, written
from tests.support.workspace import Workspace

REFUSED = {"modernbert", "qwen3", "static"}
DISTIL = replace(RECIPE, loss="distil", layers=1, epochs=30, learning_rate=3e-3)


def layers_of(model: Any) -> int:
    return int(model[0].model.config.num_hidden_layers)


def test_fewer_layers_learn_the_vectors_of_the_base(tmp_path: Path) -> None:
    base, pairs = FAMILIES["bert"](tmp_path / "tiny"), read_pairs(written(tmp_path))
    texts = [pair.positive for pair in pairs]
    wanted, cut = load(base), load(base)
    whole = layers_of(wanted)
    keep_layers(cut, 1)
    fit(base, pairs, DISTIL, tmp_path, lambda _: None)
    made = load(tmp_path / "model")
    assert layers_of(made) == 1 < whole
    near = [(encode(model, texts, "document") * encode(wanted, texts, "document")).sum(axis=1) for model in (cut, made)]
    assert (1 - near[1]).mean() < 0.5 * (1 - near[0]).mean(), "training has brought them nearer"
    spec = EncoderSpec(
        "torch", tmp_path / "model", tmp_path / "cache", 64, wanted.get_embedding_dimension() or 0, threads=1
    )
    with closing(open_encoder(choose(replace(spec, precision="f32")))) as encoder:
        found = encoder.encode(texts, np.full(len(texts), 12))
    assert np.abs(found - encode(made, texts, "document")).max() <= 1e-6
    spaces = [describe_space(one, chunker="", normaliser="").space_id for one in (base, tmp_path / "model")]
    assert spaces[0] != spaces[1], "a space of its own"


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_layers_are_left_out_of_what_loads_again_as_it_was_and_else_refused(kind: str, tmp_path: Path) -> None:
    model = load(FAMILIES[kind](tmp_path / "tiny"))
    texts = ["the locker of floor 1 is by the door", "noon"]
    if kind in REFUSED:
        with pytest.raises(ConfigError, match=r"^training\.layers: "):
            keep_layers(model, 1)
        return
    keep_layers(model, 1)
    model.save_pretrained(str(tmp_path / "cut"), create_model_card=False)
    assert np.abs(encode(load(tmp_path / "cut"), texts, "") - encode(model, texts, "")).max() <= 1e-6


def test_no_more_layers_are_kept_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.layers: the model has \d layers; keep from 1 to that"):
        keep_layers(load(FAMILIES["bert"](tmp_path / "tiny")), 99)


@pytest.mark.parametrize("adapter", [0, 4])
def test_blended_weights_are_between_those_of_the_base_and_the_trained_ones(adapter: int, tmp_path: Path) -> None:
    base, pairs = FAMILIES["bert"](tmp_path / "tiny"), read_pairs(written(tmp_path))
    made = []
    for share in (1.0, 0.25):
        folder = tmp_path / str(share)
        folder.mkdir()
        fit(base, pairs, replace(RECIPE, adapter=adapter, blend=share), folder, lambda _: None)
        made.append(dict(load(folder / "model").named_parameters()))
    moved = 0
    for name, began in load(base).named_parameters():
        trained, between = made[0][name].detach(), made[1][name].detach()
        moved += bool((trained != began).any())
        assert np.allclose(between, began.detach() + 0.25 * (trained - began.detach()), atol=1e-6), name
    assert moved > 3


def test_a_model_of_fewer_layers_says_what_it_costs_and_what_it_loses(tiny: Workspace) -> None:
    tiny.config.write_text(f"{tiny.config.read_text()}layers = 1\n")
    done = tiny.call("train", "--pairs", str(written(tiny.root)), "--name", "small")
    assert done.code == 0 and len(done.body["speed"]) == 2 and min(done.body["speed"]) > 0, done
    assert done.body["evaluation"]["questions"] == 8
    assert " x its base" in trained(TrainBody.model_validate(done.body, strict=False))
