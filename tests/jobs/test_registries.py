"""Models by name and number, in a folder and on a real MLflow server: found by an alias, marked and removed after a purge."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from mlflow import MlflowClient

from embedding.errors import ConfigError, ResourceError
from jobs.bodies.models import Taint
from jobs.commands.promote import promote
from jobs.config import Config, load_config
from jobs.registry import CHALLENGER, CHAMPION, Reference, open_registry
from jobs.registry.base import Registry
from jobs.registry.manifest import manifest_of
from jobs.registry.mlflow import EXPERIMENT, MlflowRegistry
from jobs.registry.taints import mark_models, remove_tainted
from jobs.registry.use import model_folder, pinned, refuse_tainted
from jobs.scope import iso
from jobs.state.purge_rules import PurgeRule
from jobs.state.store import State
from tests.support.mlflow_server import MISSING, MlflowServer
from tests.support.proxy import Proxy
from tests.support.registries import KEY, SEEN, add, card, files_of, model_in
from tests.support.workspace import Workspace


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_in(tmp_path)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    if MISSING:
        pytest.skip(MISSING)
    server = MlflowServer(tmp_path_factory.mktemp("mlflow") / "server")
    yield server
    server.stop()


def emptied(server: MlflowServer) -> str:
    """The address of a server without models."""
    client = MlflowClient(server.uri, server.uri)
    for one in client.search_registered_models():
        client.delete_registered_model(one.name)
    for run in client.search_runs(["0", *(one.experiment_id for one in client.search_experiments())]):
        client.delete_run(run.info.run_id)
    shutil.rmtree(server.files, ignore_errors=True)
    return server.uri


@pytest.fixture(params=["folder", "server"])
def config(request: pytest.FixtureRequest, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.root / "machine"))
    if request.param == "server":
        uri = emptied(request.getfixturevalue("mlflow"))
        workspace.config.write_text(f'{workspace.config.read_text()}[registry]\nuri = "{uri}"\n')
    return load_config(workspace.config)


@pytest.fixture
def registry(config: Config) -> Registry:
    return open_registry(config)


def state_of(workspace: Workspace) -> State:
    return State(workspace.root / "state", hash_key=KEY.hex())


def test_a_model_comes_back_byte_for_byte(registry: Registry, model: Path) -> None:
    assert (add(registry, model), add(registry, model)) == (1, 2) and registry.versions("chat") == [1, 2]
    found = registry.model("chat", 1)
    assert files_of(found) == files_of(model)
    assert registry.card("chat", 2).version == 2 and registry.manifest("chat", 1).equals(manifest_of(KEY, SEEN))
    assert registry.names() == ["chat"]


def test_an_alias_is_looked_up_once_for_a_command(config: Config, registry: Registry, model: Path) -> None:
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
    config: Config, registry: Registry, model: Path
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
    with pytest.raises(ConfigError, match="stands for models:/chat/1, and stood for nothing before that"):
        promote(config, "chat", back=True)


def test_a_worse_one_a_leaking_one_and_a_tainted_one_are_refused_with_figures(
    config: Config, registry: Registry, model: Path, workspace: Workspace
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
    short = add(registry, model, exposure=4.4, planted=6)
    told = promote(config, "chat", version=short, check=True)
    assert len(told.reasons) == 2 and "of 16 planted pairs it has seen 6, at least 8 are needed" in told.reasons[1]
    wide = config.model_copy(update={"training": config.training.model_copy(update={"max_exposure": 9.0})})
    assert promote(wide, "chat", version=short, check=True).reasons == told.reasons[1:]
    mark_models(config, state_of(workspace), [PurgeRule("T1", "C1", frozenset(), None, int(time.time() * 1e6))], "r")
    tainted = add(registry, model)
    registry.mark("chat", tainted, registry.taint("chat", 1) or pytest.fail("1 is not marked"))
    told = promote(config, "chat", version=tainted)
    assert not told.promoted and "1 of the documents" in told.reasons[0]
    assert registry.standing("chat", CHAMPION) == [1]


def test_a_purge_marks_what_has_seen_it_and_gc_removes_it(
    config: Config, registry: Registry, model: Path, workspace: Workspace
) -> None:
    state = state_of(workspace)
    manifest = manifest_of(state.hash_key, SEEN)
    now = int(time.time() * 1e6)
    for made_at in (now - 10, now - 10, now + 10_000_000):
        registry.add("chat", model, manifest, lambda number, at=made_at: card(number, made_at=at))  # type: ignore[misc]
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
    registry.add("chat", model, manifest, lambda number: card(number))
    assert registry.versions("chat") == [4], "a number is not given again"


def test_a_model_whose_list_cannot_be_read_is_marked(
    config: Config, registry: Registry, model: Path, workspace: Workspace, request: pytest.FixtureRequest
) -> None:
    add(registry, model)
    add(registry, model)
    files = request.getfixturevalue("mlflow").files if "://" in registry.where else Path(registry.where)
    damaged, gone = files.rglob("manifest.parquet")
    damaged.write_bytes(b"damaged")
    gone.unlink()
    rule = PurgeRule("T9", "", frozenset(), None, int(time.time() * 1e6))
    assert mark_models(config, state_of(workspace), [rule], "run") == {"models:/chat/1": 0, "models:/chat/2": 0}
    assert registry.taint("chat", 1) is not None is not registry.taint("chat", 2)


@pytest.fixture
def served(mlflow: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowRegistry:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowRegistry(emptied(mlflow), tmp_path / "cache")


def told(server: MlflowServer) -> set[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Names, versions, and what the champion has stood for, read by another client."""
    other = MlflowRegistry(server.uri, server.files.parent / "cache")
    return {(name, tuple(other.versions(name)), tuple(other.standing(name, CHAMPION))) for name in other.names()}


@contextmanager
def cut_before(number: int, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the server be away from a client's request of that number on, 0 for the first."""
    sent, really = itertools.count(), requests.Session.send

    def send(session: requests.Session, request: requests.PreparedRequest, **given: Any) -> requests.Response:
        if next(sent) >= number:
            proxy.cut(3600)
        return really(session, request, **given)

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "send", send)
        yield


COMMANDS: dict[str, Callable[[Registry, Path], object]] = {
    "add": add,
    "promote": lambda registry, _: registry.point("chat", CHAMPION, 2),
    "back": lambda registry, _: registry.step_back("chat", CHAMPION),
    "mark": lambda registry, _: registry.mark("chat", 2, Taint(run_id="r", purged_at=iso(0), documents=1)),
    "fetch": lambda registry, _: registry.model("chat", 2),
    "remove": lambda registry, _: registry.remove("chat", 2),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_server_that_goes_before_any_request_leaves_nothing_half_done(
    name: str,
    served: MlflowRegistry,
    mlflow: MlflowServer,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in (add(served, model), add(served, model)):
        served.point("chat", CHAMPION, number)
    if name == "promote":
        served.step_back("chat", CHAMPION)
    before, failed = told(mlflow), 0
    for number in range(40):
        proxy = Proxy(mlflow.uri)
        try:
            with cut_before(number, proxy, monkeypatch):
                registry = MlflowRegistry(proxy.uri, tmp_path / "cache")
                registry._cache = tmp_path / "cache" / "kept"  # of each try, whose address is another
                COMMANDS[name](registry, model)
            break
        except ResourceError as error:
            failed += 1
            assert f"registry.uri: {proxy.uri}: could not" in str(error) and str(error).endswith(
                "cannot be reached; is the server up?"
            )
        finally:
            proxy.close()
        if name != "remove":  # its last requests tidy this machine
            assert told(mlflow) == before, number
    else:
        pytest.fail("it never came to its end")
    champion = {"add": (1, 2), "promote": (1, 2), "back": (1,), "mark": (1, 2), "fetch": (1, 2), "remove": (1,)}[name]
    assert told(mlflow) == {("chat", {"add": (1, 2, 3), "remove": (1,)}.get(name, (1, 2)), champion)} and failed
    assert (served.taint("chat", 1 if name == "remove" else 2) is not None) == (name == "mark")
    if name == "fetch":
        [kept] = (tmp_path / "cache" / "kept" / "chat").glob("2-*")
        assert files_of(kept) == files_of(model) and len(list(kept.parent.iterdir())) == 2, "it, and the lock"


def test_bytes_of_a_model_that_is_removed_are_on_no_machine(
    served: MlflowRegistry, mlflow: MlflowServer, model: Path, tmp_path: Path
) -> None:
    add(served, model)
    elsewhere = MlflowRegistry(mlflow.uri, tmp_path / "elsewhere")
    kept = [elsewhere.model("chat", 1), served.model("chat", 1)]
    assert kept[1] == served.model("chat", 1) and all((one / "1_Pooling" / "config.json").exists() for one in kept)
    add(served, model)
    served.remove("chat", 1)
    assert not kept[1].exists() and len(list(mlflow.files.rglob("manifest.parquet"))) == 1
    elsewhere.model("chat", 2)
    assert not kept[0].exists(), "of another machine it goes when that looks for the model again"


def test_what_a_killed_command_uploaded_goes_a_day_later(
    served: MlflowRegistry, mlflow: MlflowServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(served, model)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add(served, model)
    assert served.versions("chat") == [1] and len(list(mlflow.files.rglob("manifest.parquet"))) == 2
    add(served, model)
    assert len(list(mlflow.files.rglob("manifest.parquet"))) == 3, "another machine may be about to make it"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    add(served, model)
    assert served.versions("chat") == [1, 2, 3] and len(list(mlflow.files.rglob("manifest.parquet"))) == 3


def test_a_server_holds_no_id_and_no_time_of_a_document(
    served: MlflowRegistry, mlflow: MlflowServer, model: Path
) -> None:
    add(served, model)
    held = [file.read_bytes() for file in mlflow.files.parent.rglob("*") if file.is_file() and file.name != "log"]
    times = [one.created_at.to_bytes(8, "little") for one in SEEN]
    assert len(held) > 3 and not [data for data in held for one in (b"T1/m", b"T1", *times) if one in data]


def test_a_model_that_was_renamed_on_the_server_keeps_its_files(
    served: MlflowRegistry, mlflow: MlflowServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(served, model)
    MlflowClient(mlflow.uri, mlflow.uri).rename_registered_model("chat", "talk")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    add(served, model)
    assert files_of(served.model("talk", 1)) == files_of(model)


def test_a_version_whose_run_is_gone_has_no_manifest(served: MlflowRegistry, mlflow: MlflowServer, model: Path) -> None:
    add(served, model)
    with sqlite3.connect(mlflow.files.parent / "store.db") as database:  # as `mlflow gc` leaves it
        database.execute("pragma foreign_keys = off")
        database.execute("delete from runs")
    with pytest.raises(FileNotFoundError):
        served.manifest("chat", 1)


def test_an_experiment_whose_files_only_the_server_s_machine_sees_is_refused(
    served: MlflowRegistry, mlflow: MlflowServer, model: Path, tmp_path: Path
) -> None:
    client = MlflowClient(mlflow.uri, mlflow.uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        client.rename_experiment(found.experiment_id, f"former {found.experiment_id}")
    other = client.create_experiment(EXPERIMENT, artifact_location=str(tmp_path / "files"))
    with pytest.raises(ConfigError, match="where only its own machine sees"):
        add(served, model)
    client.rename_experiment(other, "of its own machine")


def test_models_of_others_on_that_server_are_left_alone(
    served: MlflowRegistry, mlflow: MlflowServer, model: Path
) -> None:
    client = MlflowClient(mlflow.uri, mlflow.uri)
    client.create_registered_model("theirs")
    run = client.create_run("0").info
    client.create_model_version("theirs", f"{run.artifact_uri}/theirs", run.run_id)
    add(served, model)
    assert served.names() == ["chat"] and served.versions("theirs") == []
    with pytest.raises(ConfigError, match="has a model theirs that is not embedmill's"):
        served.check_writable("theirs")


def test_an_alias_that_somebody_moved_by_hand_counts(served: MlflowRegistry, mlflow: MlflowServer, model: Path) -> None:
    client = MlflowClient(mlflow.uri, mlflow.uri)
    for _ in range(3):
        served.point("chat", CHAMPION, add(served, model))
    client.set_registered_model_alias("chat", CHAMPION, "1")
    assert served.standing("chat", CHAMPION) == [1]
    served.point("chat", CHAMPION, 3)
    assert served.standing("chat", CHAMPION) == [1, 3]
    run = client.create_run("0").info
    client.create_model_version("chat", f"{run.artifact_uri}/theirs", run.run_id)
    client.set_registered_model_alias("chat", CHAMPION, "4")
    assert served.standing("chat", CHAMPION) == [], "of another tool: it is not ours to answer for"


def test_a_server_that_is_not_there_is_one_line_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token")
    with pytest.raises(ResourceError) as told:
        MlflowRegistry("http://127.0.0.1:9", tmp_path).names()
    assert (
        str(told.value)
        == "registry.uri: http://127.0.0.1:9: could not list the models: it cannot be reached; is the server up?"
    )
