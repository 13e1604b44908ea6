"""Models by name and number: whole or not there, found by an alias, marked and removed after a purge."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from embedding.errors import ConfigError
from jobs.bodies.models import Card, ComparedBody, PrivacyBody, TrainingBody
from jobs.commands.promote import promote
from jobs.config import Config, load_config
from jobs.registry import CHALLENGER, CHAMPION, Reference, open_registry, reference_of
from jobs.registry.folder import FolderRegistry
from jobs.registry.manifest import Seen, digest_of, manifest_of, purged
from jobs.registry.taints import mark_models, remove_tainted
from jobs.registry.use import model_folder, pinned, refuse_tainted
from jobs.scope import iso
from jobs.state.purge_rules import PurgeRule
from jobs.state.store import State
from tests.support.workspace import Workspace

KEY = b"k" * 32
SEEN = [Seen("T1/m/C1/1", "T1", "C1", 100), Seen("T1/m/C2/2", "T1", "C2", 200), Seen("T2/m/C1/1", "T2", "C1", 100)]


def card(
    name: str,
    version: int,
    *,
    verdict: str = "better",
    beside: str = "better",
    exposure: float = 0.5,
    made_at: int = 0,
) -> Card:
    evaluation = ComparedBody(questions=9, before=0.5, after=0.4, interval=(-0.2, -0.1), p_value=0.001, verdict=verdict)
    return Card(
        name=name,
        version=version,
        space_id="s",
        base="base",
        base_space_id="b",
        made_at=iso(made_at),
        code="0",
        licence="private",
        manifest="m",
        training=TrainingBody(
            source="pairs.jsonl",
            pairs=1,
            held_out=1,
            documents=3,
            settings={},
            steps=1,
            tokens=1,
            seconds=1.0,
            peak_mb=1.0,
        ),
        evaluation=evaluation,
        champion=1,
        beside=evaluation.model_copy(update={"verdict": beside}),
        privacy=PrivacyBody(
            planted=16, exposure=exposure, limit=3.0, membership=0.6, inversion=(0.1, 0.1), passed=exposure <= 3.0
        ),
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling" / "config.json").write_bytes(b"\x00bytes\xff")
    return folder


@pytest.fixture
def config(workspace: Workspace) -> Config:
    return load_config(workspace.config)


@pytest.fixture
def registry(config: Config) -> FolderRegistry:
    return open_registry(config)


def add(registry: FolderRegistry, model: Path, name: str = "chat", **about: object) -> int:
    return registry.add(name, model, manifest_of(KEY, SEEN), lambda number: card(name, number, **about))  # type: ignore[arg-type]


def test_a_model_comes_back_byte_for_byte(registry: FolderRegistry, model: Path) -> None:
    assert (add(registry, model), add(registry, model)) == (1, 2) and registry.versions("chat") == [1, 2]
    found = registry.model("chat", 1)
    assert {file.relative_to(found): file.read_bytes() for file in found.rglob("*") if file.is_file()} == {
        file.relative_to(model): file.read_bytes() for file in model.rglob("*") if file.is_file()
    }
    assert registry.card("chat", 2).version == 2 and registry.manifest("chat", 1).equals(manifest_of(KEY, SEEN))
    assert registry.names() == ["chat"]


def test_one_that_is_half_there_is_not_there_and_goes(
    registry: FolderRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(number: int) -> Card:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.add("chat", model, manifest_of(KEY, SEEN), killed)
    (registry.root / "chat" / ".1.left" / "model").mkdir(parents=True)  # of one that could not even say so
    assert registry.versions("chat") == [] == registry.names()
    assert add(registry, model) == 1
    assert [one.name for one in (registry.root / "chat").iterdir() if one.is_dir()] == ["1"]


def _add(root: Path, model: Path) -> None:
    add(FolderRegistry(root), model)


def test_two_that_register_at_once_get_two_numbers(registry: FolderRegistry, model: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_add, args=(registry.root, model)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert registry.versions("chat") == [1, 2]


@pytest.mark.parametrize(
    "text", ["models:/", "models:/a", "models:/a@", "models:/a/0", "models:/../a/1", "models:/a/b/1"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"models:/NAME@ALIAS"):
        reference_of(text)


def test_an_alias_is_looked_up_once_for_a_command(config: Config, registry: FolderRegistry, model: Path) -> None:
    named = config.model_copy(update={"model": config.model.model_copy(update={"name": "models:/chat@champion"})})
    with pytest.raises(ConfigError, match="stands for no version"):
        pinned(named)
    add(registry, model)
    add(registry, model)
    registry.point("chat", CHAMPION, 1)
    held = pinned(named)
    registry.point("chat", CHAMPION, 2)
    assert held.model.name == "models:/chat/1" and pinned(named).model.name == "models:/chat/2"
    assert model_folder(held) == registry.model("chat", 1)
    with pytest.raises(ConfigError, match="has no such version; it has 1, 2"):
        registry.resolve(Reference("chat", 3, ""))


def test_a_challenger_that_is_no_worse_becomes_the_champion_and_goes_back(
    config: Config, registry: FolderRegistry, model: Path
) -> None:
    for number in (add(registry, model), add(registry, model)):
        registry.point("chat", CHALLENGER, number)
        asked = promote(config, "chat", check=True)
        assert (asked.promoted, asked.model, asked.reasons) == (False, f"models:/chat/{number}", ())
        assert registry.standing("chat", CHAMPION) == list(range(1, number)), "nothing is moved"
        done = promote(config, "chat")
        assert (done.promoted, done.model, done.reasons) == (True, f"models:/chat/{number}", ())
    assert done.former == "models:/chat/1" and registry.standing("chat", CHAMPION) == [1, 2]
    assert promote(config, "chat", back=True).model == "models:/chat/1"
    assert registry.standing("chat", CHAMPION) == [1]
    with pytest.raises(ConfigError, match="stood for no other model"):
        promote(config, "chat", back=True)


def test_a_worse_one_a_leaking_one_and_a_tainted_one_are_refused_with_figures(
    config: Config, registry: FolderRegistry, model: Path, workspace: Workspace
) -> None:
    add(registry, model)
    registry.point("chat", CHAMPION, 1)
    worse, leaking = add(registry, model, verdict="worse"), add(registry, model, exposure=6.5)
    assert promote(config, "chat", version=worse, check=True).reasons == promote(config, "chat", version=worse).reasons
    told = promote(config, "chat", version=worse)
    assert not told.promoted and "nDCG@10 0.4000 after 0.5000 over 9 questions" in told.reasons[0]
    told = promote(config, "chat", version=add(registry, model, beside="worse"))
    assert not told.promoted and "less than version 1, then the champion" in told.reasons[0]
    told = promote(config, "chat", version=leaking)
    assert not told.promoted and "exposed by 6.50 bits, at most 3 may be" in told.reasons[0]
    mark_models(config, state_of(workspace), [PurgeRule("T1", "C1", frozenset(), None, int(time.time() * 1e6))], "r")
    tainted = add(registry, model)
    registry.mark("chat", tainted, registry.taint("chat", 1) or pytest.fail("1 is not marked"))
    told = promote(config, "chat", version=tainted)
    assert not told.promoted and "1 of the documents" in told.reasons[0]
    assert registry.standing("chat", CHAMPION) == [1]


def state_of(workspace: Workspace) -> State:
    return State(workspace.root / "state", hash_key=KEY.hex())


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (PurgeRule("T1", "", frozenset(), None, 1), 2),
        (PurgeRule("T1", "C1", frozenset(), None, 1), 1),
        (PurgeRule("T1", "", frozenset(["T1/m/C2/2", "T1/m/C9/9"]), None, 1), 1),
        (PurgeRule("T1", "", frozenset(), 200, 1), 1),
        (PurgeRule("T3", "", frozenset(), None, 1), 0),
        (PurgeRule("T2", "C1", frozenset(["T1/m/C1/1"]), None, 1), 0),
    ],
)
def test_a_manifest_says_what_a_purge_covers_and_names_nothing(rule: PurgeRule, count: int) -> None:
    manifest = manifest_of(KEY, SEEN)
    assert purged(manifest, [rule], KEY) == count and purged(manifest, [rule], b"x" * 32) == 0
    assert purged(manifest, [], KEY, ["T1/m/C1/1", "T1/m/C9/9"]) == 1, "wherever it was when it was removed"
    assert purged(manifest, [], KEY) == 0 == purged(manifest_of(KEY, []), [rule], KEY)
    assert digest_of(manifest) == digest_of(manifest_of(KEY, reversed(SEEN)))
    assert not any(isinstance(value, str) for column in manifest.to_pydict().values() for value in column)


def test_a_purge_marks_what_has_seen_it_and_gc_removes_it(
    config: Config, registry: FolderRegistry, model: Path, workspace: Workspace
) -> None:
    state = state_of(workspace)
    manifest = manifest_of(state.hash_key, SEEN)
    now = int(time.time() * 1e6)
    for made_at in (now - 10, now - 10, now + 10_000_000):
        registry.add("chat", model, manifest, lambda number, at=made_at: card("chat", number, made_at=at))  # type: ignore[misc]
    registry.point("chat", CHAMPION, 1)
    rule = PurgeRule("T1", "", frozenset(), None, now)
    ahead = PurgeRule("T1", "", frozenset(["T1/m/C1/1"]), None, now + 10**15)  # of a document that is dated ahead
    assert mark_models(config, state, [rule, ahead], "run") == {
        "models:/chat/1": 2,
        "models:/chat/2": 2,
        "models:/chat/3": 1,
    }
    registry.remove("chat", 3)
    assert remove_tainted(config) == [], "until then they answer for the indexes that have their vectors"

    strict = config.model_copy(update={"registry": config.registry.model_copy(update={"tainted_hours": 0.0})})
    named = strict.model_copy(update={"model": strict.model.model_copy(update={"name": "models:/chat@champion"})})
    held = pinned(named)
    assert held.model.name == "models:/chat/1", "a purge and a look go on"
    with pytest.raises(ConfigError, match="has seen 2 documents that were purged 0 hours ago"):
        refuse_tainted(held)
    assert remove_tainted(held, dry_run=True) == ["models:/chat/2"] and registry.versions("chat") == [1, 2]
    assert remove_tainted(held) == ["models:/chat/2"], "not the one that is configured"
    assert remove_tainted(strict) == ["models:/chat/1"] and registry.standing("chat", CHAMPION) == []
    registry.add("chat", model, manifest, lambda number: card("chat", number))
    assert registry.versions("chat") == [4], "a number is not given again"


def test_what_a_killed_command_left_stops_nobody(registry: FolderRegistry, model: Path) -> None:
    add(registry, model)
    folder = registry.root / "chat"
    (folder / ".aliases.json.5f").write_text("{")  # of a small file that was being written
    (folder / ".7.gone" / "model").mkdir(parents=True)  # of a version that was being removed
    registry.point("chat", CHAMPION, 1)
    assert registry.standing("chat", CHAMPION) == [1] and not list((folder / ".7.gone").iterdir())
    assert add(registry, model) == 8 and not (folder / ".aliases.json.5f").exists()


def test_a_model_whose_list_cannot_be_read_is_marked(
    config: Config, registry: FolderRegistry, model: Path, workspace: Workspace
) -> None:
    add(registry, model)
    (registry.root / "chat" / "1" / "manifest.parquet").write_bytes(b"damaged")
    rule = PurgeRule("T9", "", frozenset(), None, int(time.time() * 1e6))
    assert mark_models(config, state_of(workspace), [rule], "run") == {"models:/chat/1": 0}
    assert registry.taint("chat", 1) is not None
