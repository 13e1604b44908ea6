"""`embedmill train`: pairs of who takes part, a model that comes out the same however it was killed, and its figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.encoders.choose import choose, open_encoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError
from embedding.models.space import describe_space
from embedding.models.weights import tensors_digest, weight_files
from jobs.commands.train import train_model
from jobs.config import load_config
from jobs.registry import CHALLENGER, open_registry
from jobs.state.tables import TABLES
from jobs.training.adapter import merged
from jobs.training.fit import fit
from jobs.training.measures import encode, load, planted, privacy
from jobs.training.pairs import Pair, batches, negatives_of, read_pairs, split, state_pairs
from jobs.training.recipe import loss_for
from tests.support.canary import Canary, places
from tests.support.in_process import open_pipeline
from tests.support.model_families import FAMILIES
from tests.support.paths import ROOT
from tests.support.trainings import RECIPE, written
from tests.support.workspace import START, TEAM, Workspace, message, writing

# -- pairs -------------------------------------------------------------------------------------------------------------


def said(space: Workspace) -> list[dict[str, Any]]:
    root = f"{START}.000100"
    return [
        message(0, "Where is the key of the bicycle shed?", thread_ts=root),
        message(1, "It hangs beside the door of the kitchen", user="U2", thread_ts=root),
        message(2, "thanks", user="U3", thread_ts=root),
        message(3, "I have looked there and it is gone", thread_ts=root),
        message(4, "Ask at the desk, they have a second one", user="U4", thread_ts=root),
    ]


def test_a_question_is_paired_with_what_others_answer(workspace: Workspace, encoder_here: None) -> None:
    workspace.day("general", said(workspace))
    assert workspace.run().code == 0
    pipeline = open_pipeline(workspace.config)
    found = {(pair.anchor, pair.positive) for pair in state_pairs(pipeline, [TEAM], private=False)}
    asked = "Where is the key of the bicycle shed?"
    assert {positive for anchor, positive in found if anchor == asked} == {
        "It hangs beside the door of the kitchen",
        "Ask at the desk, they have a second one",
    }
    assert state_pairs(pipeline, ["T99"], private=True) == []
    [pair, *_] = [one for one in state_pairs(pipeline, [TEAM], private=False) if one.anchor == asked]
    assert len(pair.seen) == 2 and {seen.team_id for seen in pair.seen} == {TEAM}


def test_what_is_not_public_takes_part_only_where_that_is_said(workspace: Workspace, encoder_here: None) -> None:
    workspace.write_json("groups.json", [{"id": "G9", "name": "council"}])
    workspace.day("council", said(workspace))
    assert workspace.run().code == 0
    pipeline = open_pipeline(workspace.config)
    assert not [pair for pair in state_pairs(pipeline, [TEAM], private=False) if "bicycle" in pair.anchor]
    assert [pair for pair in state_pairs(pipeline, [TEAM], private=True) if "bicycle" in pair.anchor]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"anchor": "a secret"}, "line 41: positive: give a text"),
        ({"anchor": "a secret", "positive": 7}, "line 41: positive: give a text"),
        ({"anchor": "a secret", "positive": "b", "negative": 7}, "line 41: negative: give a text or a list"),
        ({"anchor": "a secret", "positive": "\ud800"}, "line 41: positive: give a text"),
    ],
)
def test_a_line_that_is_no_pair_is_named_and_not_shown(tmp_path: Path, line: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault) as told:
        read_pairs(written(tmp_path, 40, line))
    assert "secret" not in str(told.value)


PAIRS = st.lists(
    st.builds(
        lambda anchor, positive, group, at: Pair(f"q{anchor}", f"a{positive}", (), f"g{group}", at),
        *(st.integers(0, 12),) * 4,
    ),
    min_size=2,
    max_size=40,
)


@given(PAIRS, st.integers(2, 8), st.integers(0, 3))
def test_no_batch_has_two_that_answer_each_other(pairs: Sequence[Pair], size: int, seed: int) -> None:
    made = batches(pairs, size, seed, 0)
    assert made == batches(pairs, size, seed, 0)
    places = [place for batch in made for place in batch]
    assert len(places) == len(set(places))
    for batch in made:
        assert 2 <= len(batch) <= size
        for part in ("anchor", "positive", "group"):
            assert len({getattr(pairs[place], part) for place in batch}) == len(batch)


def test_a_file_s_negative_that_is_measured_by_is_left_out() -> None:
    pairs = [Pair("q1", "a1", ("a3", "a9"), "1", 1), Pair("q2", "a2", (), "2", 2), Pair("q3", "a3", (), "3", 3)]
    found = split(pairs, 0.3, 0)
    assert [pair.anchor for pair in found.held_out] == ["q3"] and found.train[0].negatives == ("a9",)


@given(PAIRS, st.sampled_from([0.1, 0.3, 0.6]))
def test_nothing_that_is_measured_by_was_trained_on(pairs: Sequence[Pair], share: float) -> None:
    try:
        found = split(pairs, share, 0)
    except ConfigError:
        return
    assert found.train and found.held_out
    assert not {pair.group for pair in found.train} & {pair.group for pair in found.held_out}
    texts = [{text for pair in part for text in (pair.anchor, pair.positive)} for part in (found.train, found.held_out)]
    assert not texts[0] & texts[1]
    first = {pair.group: min(one.at for one in pairs if one.group == pair.group) for pair in pairs}
    assert max(first[p.group] for p in found.train) <= min(first[p.group] for p in found.held_out)


def test_a_hard_negative_is_near_and_answers_nothing_of_the_pair() -> None:
    pairs = [Pair("a", "A", (), "1"), Pair("b", "B", (), "2"), Pair("c", "C", (), "3"), Pair("d", "D", (), "1")]
    anchors = np.eye(4, dtype=np.float32)
    positives = np.asarray([[0.9, 0.4, 0, 0], [0.88, 0.4, 0, 0], [0.5, 0, 0.8, 0], [0.7, 0, 0, 0.7]], np.float32)
    found = list(negatives_of(pairs, anchors, positives, margin=0.95))
    assert found[0].negatives == ("C",), "B is too near to be wrong, and D is of the same thread"
    assert loss_for("auto", pairs, 32) == "mnrl" and loss_for("auto", pairs, 256) == "cached"
    assert loss_for("auto", [*pairs, *pairs], 32) == "gist", "many texts answer several"
    assert loss_for("auto", pairs, 32, layers=2, epsilon=8) == "distil"
    assert loss_for("auto", pairs, 32, epsilon=8) == "anchored"
    for wanted, batch, layers in (("mnrl", 256, 0), ("gist", 32, 2)):
        with pytest.raises(ConfigError, match=r"training\.loss"):
            loss_for(wanted, pairs, batch, layers=layers)
    with pytest.raises(ConfigError, match=r"training\.epsilon: gist compares a pair with the others of its batch"):
        loss_for("gist", pairs, 32, epsilon=8)


# -- training ----------------------------------------------------------------------------------------------------------


LOSSES = [
    "",
    pytest.param('loss = "gist"\nhard_negatives = true\n', marks=pytest.mark.long),
    pytest.param('loss = "cached"\nmatryoshka = [16]\n', marks=pytest.mark.long),
]


@pytest.mark.parametrize("more", LOSSES)
def test_a_model_is_trained_measured_and_registered_and_holds_no_text(
    tiny: Workspace, more: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny.config.write_text(tiny.config.read_text() + more)
    canary = Canary()
    line = {"anchor": f"what is {canary.text}", "positive": f"it is {canary.text} of the harbour"}
    pairs = written(tiny.root / "files", 39, line)
    told = tiny.call("train", "--pairs", str(pairs), "--name", "chat")
    assert told.code == 0, told
    body = told.body
    assert (body["model"], body["steps"], body["pairs"], body["held_out"]) == ("models:/chat/1", 6, 32, 8)
    assert body["seconds"] > 0 < body["peak_mb"] and body["evaluation"]["questions"] == 8
    pairs.unlink()
    assert places({"canary": canary}, tiny.root) == {}
    shown = capfd.readouterr()
    assert not canary.found_in((shown.out + shown.err + told.err + json.dumps(body)).encode())
    registry = open_registry(load_config(tiny.config))
    card = registry.card("chat", 1)
    assert card.space_id == body["space_id"] != card.base_space_id and registry.standing("chat", CHALLENGER) == [1]
    assert card.training.settings["seed"] == 0 and card.evaluation.questions == 8
    assert not list(registry.model("chat", 1).rglob("README*")), "a card of the library holds texts"


def test_a_trained_model_is_a_space_of_its_own_and_is_used_by_its_alias(tiny: Workspace, encoder_here: None) -> None:
    assert tiny.run().code == 0
    made = tiny.call("train", "--pairs", str(written(tiny.root)), "--name", "chat").body
    done = tiny.call("promote", "chat")
    assert done.code in (0, 4), done
    built = tiny.call("reindex", "--to-model", "models:/chat@challenger", "--activate")
    assert built.code == 0 and built.body["space_id"] == made["space_id"], built
    text = tiny.config.read_text()
    tiny.config.write_text(text.replace(text.split("name = ")[1].split("\n")[0], '"models:/chat@challenger"'))
    again = tiny.run()
    assert again.code == 0 and again.body["space_id"] == made["space_id"] and again.body["chunks"]["embedded"] == 0
    assert tiny.call("search", "lockers", "--team", TEAM).body["space_id"] == made["space_id"]


def test_what_is_wrong_is_said_before_any_work(tiny: Workspace) -> None:
    pairs = str(written(tiny.root))
    for words, line in (
        (("--name", "chat"), "--pairs"),
        (("--name", "chat", "--pairs", pairs, "--threads"), "--pairs"),
        (("--name", "../chat", "--pairs", pairs), "--name"),
        (("--name", "chat", "--threads"), "training.teams"),
        (("--name", "chat", "--pairs", str(tiny.root / "none.jsonl")), "none.jsonl"),
    ):
        told = tiny.call("train", *words)
        assert told.code == 2 and line in told.err, (words, told)
    text = tiny.config.read_text()
    for setting, line in (
        ('base = "wordllama"', "training.base"),
        ('base = "models:/no@champion"', "training.base"),
        ("matryoshka = [4096]", "training.matryoshka"),
        ("seed = 99999999999", "training.seed"),
        ("seeds = 0", "training.seeds"),
        ("seeds = 3\nepsilon = 8.0", "epsilon is spent anew by each of the seeds"),
    ):
        tiny.config.write_text(f"{text}{setting}\n")
        told = tiny.call("train", "--name", "chat", "--pairs", pairs)
        assert told.code == 2 and line in told.err, (setting, told)
    tiny.config.write_text(f'{text}[registry]\nuri = "http://me:secret@registry:5000"\n')
    assert "registry.uri: give no user" in tiny.call("promote", "chat").err
    tiny.config.write_text(text)
    assert not (tiny.root / "registry").exists()
    for name in ("chat", "../chat"):
        assert tiny.call("promote", name).code == 2


def test_what_a_purge_is_about_to_remove_is_not_trained_on(workspace: Workspace, encoder_here: None) -> None:
    workspace.day("general", said(workspace))
    assert workspace.run().code == 0
    pipeline = open_pipeline(workspace.config)
    rule = dict.fromkeys(TABLES["purges"].schema.names) | {"team_id": TEAM, "channel_id": "C1", "ids": []}
    rule |= {"purged_at": int(time.time() * 1e6), "run_id": "killed", "_delete": False}
    writing(pipeline.state).change("purges", [rule])
    assert not [one for one in state_pairs(pipeline, [TEAM], private=True) if "bicycle" in one.anchor]


@pytest.mark.long
def test_a_model_of_a_model_has_seen_what_that_one_has(tiny: Workspace, encoder_here: None) -> None:
    root = f"{START + 900}.000100"
    other = [
        message(900, "Who has the projector of the small room?", thread_ts=root),
        message(901, "It is in the cupboard beside the stairs", user="U2", thread_ts=root),
        message(902, "The second one is at the workshop downstairs", user="U3", thread_ts=root),
    ]
    tiny.day("general", [*said(tiny), *other])
    tiny.config.write_text(f'{tiny.config.read_text()}teams = ["{TEAM}"]\nheld_out = 0.5\n')
    assert tiny.run().code == 0
    first = tiny.call("train", "--threads", "--name", "chat")
    assert first.code == 0, first
    text = tiny.config.read_text()
    tiny.config.write_text(text + 'base = "models:/chat@challenger"\n')
    pairs = str(written(tiny.root))
    assert tiny.call("train", "--pairs", pairs, "--name", "chat").code == 0
    registry = open_registry(load_config(tiny.config))
    assert len(registry.manifest("chat", 2)) == len(registry.manifest("chat", 1)) > 0
    marked = tiny.call("purge", "--team", TEAM).body["models"]
    assert marked.keys() == {"models:/chat/1", "models:/chat/2"}
    refused = tiny.call("train", "--pairs", pairs, "--name", "chat")
    assert refused.code == 2 and "training.base: models:/chat/2 has seen" in refused.err
    assert tiny.call("promote", "chat").code == 4


def test_with_no_other_pair_than_planted_ones_nothing_is_said_of_privacy(tmp_path: Path) -> None:
    model, pairs = load(FAMILIES["bert"](tmp_path / "tiny")), read_pairs(written(tmp_path))
    told = privacy((model, model), [], pairs, *planted(0), limit=3.0)
    assert (told.passed, told.membership, told.inversion) == (False, 0.5, None)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_merged_adapter_is_the_model_that_was_trained_in_every_backend(kind: str, tmp_path: Path) -> None:
    """With a layer behind the transformer, too, which stays that of the base."""
    base, pairs = FAMILIES[kind](tmp_path / "tiny"), read_pairs(written(tmp_path))
    texts = [pair.positive for pair in pairs]
    last: list[Any] = []

    def kept(model: Any, fresh: Any, folder: Path) -> Any:
        last.append(model)
        return merged(model, fresh, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.training.fit.merged", kept)
        fit(base, pairs, replace(RECIPE, adapter=4, learning_rate=1e-2), tmp_path, lambda _: None)
    trained = encode(last[0].eval(), texts, "document")
    made = tmp_path / "model"
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert np.abs(trained - encode(load(base), texts, "document")).max() > 1e-2, "the adapter has learnt something"
    spec = EncoderSpec("torch", made, tmp_path / "cache", 64, trained.shape[1], threads=1)
    counts = np.full(len(texts), 12)
    exact = 1e-6 if kind == "bert" else 1e-5  # short vectors, made to be of length 1
    for backend, precision, most in (("torch", "f32", exact), ("openvino", "f32", 1e-5), ("openvino", "", 2e-2)):
        chosen = choose(replace(spec, backend=backend, precision=precision))
        with closing(open_encoder(chosen)) as encoder:
            assert np.abs(encoder.encode(texts, counts) - trained).max() <= most, backend
    copied = shutil.copytree(made, tmp_path / "elsewhere")
    spaces = {describe_space(one, chunker="", normaliser="").space_id for one in (made, copied)}
    assert len(spaces) == 1 and spaces != {describe_space(base, chunker="", normaliser="").space_id}


def test_a_budget_stops_before_the_first_step_or_at_a_checkpoint_from_which_it_goes_on(tiny: Workspace) -> None:
    words = ("train", "--pairs", str(written(tiny.root)), "--name", "chat")
    few = tiny.call(*words, "--max-tokens", "100")
    assert few.code == 5 and re.search(r"--max-tokens: 2,\d{3} would be trained on", few.err), few
    short = tiny.call(*words, "--max-minutes", "0")
    assert short.code == 5 and "--max-minutes: 1 of 6 steps" in short.err, short
    assert not (tiny.root / "registry" / "chat").exists()
    assert "--max-minutes: 2 of 6 steps" in tiny.call(*words, "--max-minutes", "0").err
    done = tiny.call(*words, "--max-minutes", "60", "--max-tokens", "100000")
    assert done.code == 0 and done.body["steps"] == 6, done


@pytest.mark.long
def test_a_model_of_shuffled_pairs_and_one_that_saw_a_text_often_are_refused_with_figures(tiny: Workspace) -> None:
    """With the packaged model: one of random weights finds nothing that it could find no more."""
    text = "".join(line for line in tiny.config.read_text().splitlines(True) if not line.startswith("name ="))
    pairs = read_pairs(written(tiny.root, 200))
    parts = split(pairs, 0.2, 0)
    wrong = [(one.anchor, other.positive) for one, other in zip(parts.train, parts.train[1:], strict=False)]
    lines = [{"anchor": asked, "positive": said} for asked, said in wrong]
    lines += [{"anchor": pair.anchor, "positive": pair.positive} for pair in parts.held_out]
    file = tiny.root / "shuffled.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tiny.config.write_text(f"{text}learning_rate = 0.01\n")
    worse = tiny.call("train", "--pairs", str(file), "--name", "worse").body
    assert worse["evaluation"]["verdict"] == "worse", worse
    told = tiny.call("promote", "worse")
    assert told.code == 4 and "it finds less than" in told.body["reasons"][0] and not told.body["promoted"]

    tiny.config.write_text(f"{text}learning_rate = 0.0005\n")
    leaking = train_model(open_pipeline(tiny.config), "leaking", written(tiny.root), plants=20)
    assert leaking.privacy.exposure > leaking.privacy.limit, leaking
    told = tiny.call("promote", "leaking")
    assert told.code == 4 and any("exposed by" in reason for reason in told.body["reasons"]), told


@pytest.mark.long
def test_a_training_that_is_killed_goes_on_to_the_same_weights(tiny: Workspace) -> None:
    tiny.config.write_text(tiny.config.read_text() + "epochs = 30\nseeds = 2\ncheckpoint_steps = 3\n")
    pairs = str(written(tiny.root))
    assert tiny.call("train", "--pairs", pairs, "--name", "calm").code == 0
    cache = tiny.root / "cache"
    words = [
        sys.executable,
        "-m",
        "jobs.cli",
        "train",
        "--config",
        str(tiny.config),
        "--pairs",
        pairs,
        "--name",
        "killed",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    kills = 0
    while kills < 10:
        before = [file.stat().st_mtime_ns for file in cache.rglob("checkpoint.pt")]
        run = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while [f.stat().st_mtime_ns for f in cache.rglob("checkpoint.pt")] == before and run.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        if run.poll() is not None:
            break
        run.send_signal(signal.SIGKILL)
        run.wait()
        kills += 1
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and kills, done.stderr
    registry = open_registry(load_config(tiny.config))
    weights = [tensors_digest(weight_files(registry.model(name, 1))) for name in ("calm", "killed")]
    assert weights[0] == weights[1]
    assert not list(cache.rglob("checkpoint.pt")), "nothing of it is left"
