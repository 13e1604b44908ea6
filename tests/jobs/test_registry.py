"""The registry in a folder: whole or not there, whoever is killed; and manifests, which name nothing."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from embedding.errors import ConfigError
from jobs.bodies.models import Card
from jobs.redaction import without_userinfo
from jobs.registry import CHAMPION, reference_of
from jobs.registry.folder import FolderRegistry
from jobs.registry.manifest import digest_of, manifest_of, purged
from jobs.state.purge_rules import PurgeRule
from tests.support.registries import DAY, KEY, SEEN, add, model_in
from tests.support.workspace import Workspace


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_in(tmp_path)


@pytest.fixture
def folder(workspace: Workspace) -> FolderRegistry:
    return FolderRegistry(workspace.root / "registry")


def test_one_that_is_half_there_is_not_there_and_goes(
    folder: FolderRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(number: int) -> Card:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.add("chat", model, manifest_of(KEY, SEEN), killed)
    (folder.root / "chat" / ".1.left" / "model").mkdir(parents=True)  # of one that could not even say so
    assert folder.versions("chat") == [] == folder.names()
    assert add(folder, model) == 1
    assert [one.name for one in (folder.root / "chat").iterdir() if one.is_dir()] == ["1"]


def _add(root: Path, model: Path) -> None:
    add(FolderRegistry(root), model)


def test_two_that_register_at_once_get_two_numbers(folder: FolderRegistry, model: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_add, args=(folder.root, model)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert folder.versions("chat") == [1, 2]


@pytest.mark.parametrize(
    "text", ["models:/", "models:/a", "models:/a@", "models:/a/0", "models:/../a/1", "models:/a/b/1"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"models:/NAME@ALIAS"):
        reference_of(text)


def test_a_reference_is_shown_and_a_user_of_an_address_is_not() -> None:
    said = "model.name: models:/chat@champion: stands for no version"
    assert without_userinfo(said) == said
    for address in ("s3://key:word@host/x", "models:/user:word@host", "http://user:word@host:1"):
        assert "word" not in without_userinfo(f"model.name: {address}: no")


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (PurgeRule("T1", "", frozenset(), None, 1), 2),
        (PurgeRule("T1", "C1", frozenset(), None, 1), 1),
        (PurgeRule("T1", "", frozenset(["T1/m/C2/2", "T1/m/C9/9"]), None, 1), 1),
        (PurgeRule("T1", "", frozenset(), 200 * DAY, 1), 1),
        (PurgeRule("T1", "", frozenset(), 200 * DAY + 5, 1), 2),  # a manifest knows the day alone
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


def test_what_a_killed_command_left_stops_nobody(folder: FolderRegistry, model: Path) -> None:
    add(folder, model)
    home = folder.root / "chat"
    (home / ".aliases.json.5f").write_text("{")  # of a small file that was being written
    (home / ".7.gone" / "model").mkdir(parents=True)  # of a version that was being removed
    folder.point("chat", CHAMPION, 1)
    assert folder.standing("chat", CHAMPION) == [1] and not list((home / ".7.gone").iterdir())
    assert add(folder, model) == 8 and not (home / ".aliases.json.5f").exists()
