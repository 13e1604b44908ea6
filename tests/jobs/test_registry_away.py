"""A registry that does not answer keeps no one from looking at the state: what the last run used stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding.errors import ResourceError
from embedding.ids import file_id
from jobs.config import load_config
from jobs.registry import CHAMPION
from jobs.registry.folder import FolderRegistry
from jobs.registry.use import refuse_tainted
from tests.support.command_line import invoke
from tests.support.model_families import FAMILIES
from tests.support.registries import add
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")
AWAY = "http://127.0.0.1:9"  # nothing listens there
FAULT = "it cannot be reached; is the server up?"


def registry_at(space: Workspace, uri: str) -> None:
    before = space.config.read_text().partition("[registry]\n")[0]
    space.config.write_text(f'{before}[registry]\nuri = "{uri}"\n')


@pytest.fixture
def trained(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Workspace:
    """A workspace that runs by a model of a registry; the test may give its name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.root / "cache"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = FolderRegistry(workspace.root / "registry")
    folder.point("chat", CHAMPION, add(folder, FAMILIES["bert"](workspace.root / "tiny")))
    name = getattr(request, "param", "models:/chat@champion")
    text = workspace.config.read_text()
    workspace.config.write_text(text.replace('backend = "hash"', f'backend = "hash"\nname = "{name}"'))
    registry_at(workspace, "registry")
    return workspace


@pytest.mark.parametrize("trained", ["models:/chat@champion", "models:/chat/1"], indirect=True)
def test_what_only_looks_at_the_state_goes_by_what_the_last_run_used(trained: Workspace, tmp_path: Path) -> None:
    run = trained.run().body
    (trained.files / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    there = trained.call("status").body
    document = file_id(TEAM, "notes.txt")
    explained = trained.call("explain", document).body
    registry_at(trained, AWAY)
    told = trained.call("status")
    assert told.code == 0 and told.body | {"lag_seconds": 0} == there | {"lag_seconds": 0}
    assert told.err.count("\n") == 1 and told.err.startswith(f"embedmill: registry.uri: {AWAY}: could not ")
    assert told.err.endswith(f"{FAULT}; going by models:/chat/1, as run {run['run_id']} did\n")
    assert trained.call("explain", document).body == explained and explained["verdict"] == "published"
    assert trained.call("report", "--out", str(tmp_path / "page.html")).body["run_id"] == run["run_id"]
    for command in ("run", "plan", "verify", "reindex", "search words --team T01", "gc --vectors"):
        refused = trained.call(*command.split())
        assert refused.code == 1 and refused.body["error"]["message"].endswith(FAULT), command


def test_versions_are_collected_and_rolled_back_without_the_registry(trained: Workspace) -> None:
    first = trained.run().body
    assert trained.call("reindex").code == 0 and trained.call("reindex").code == 0
    registry_at(trained, AWAY)
    assert trained.call("rollback").body | {"run_id": ""} == {
        "run_id": "",
        "index": "messages__v2",
        "previous": "messages__v3",
        "space_id": first["space_id"],
        "model": "models:/chat/1",
        "configured": True,
        "removed": 0,
        "rows": first["index_rows"]["after"],
    }
    assert trained.call("takeover").body["taken"] == 0
    done = trained.call("gc")
    assert (done.code, done.body["dropped"], done.body["dropped_models"]) == (0, [], [])
    assert FAULT in done.body["models_unasked"]
    said = invoke(["gc", "--config", str(trained.config)]).stdout
    assert f"  models      not looked at: registry.uri: {AWAY}: " in said
    registry_at(trained, "registry")
    assert "models_unasked" not in trained.call("gc").body
    assert trained.run().body["chunks"]["unchanged"] == first["chunks"]["total"], "nothing was lost by it"


def test_of_a_model_that_no_run_used_nothing_is_guessed(trained: Workspace) -> None:
    registry_at(trained, AWAY)
    told = trained.call("status")
    assert told.code == 1 and told.body["error"]["message"].endswith(FAULT), "before the first run"
    registry_at(trained, "registry")
    assert trained.run().code == 0
    registry_at(trained, AWAY)
    text = trained.config.read_text()
    for other in ("models:/chat/2", "models:/talk@champion"):
        trained.config.write_text(text.replace("models:/chat@champion", other))
        assert trained.call("status").code == 1, other


def test_gc_of_a_packaged_model_waits_for_no_registry_either(ran: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry_at(ran, AWAY)
    done = ran.call("gc")
    assert done.code == 0 and done.body["models_unasked"].endswith(FAULT)


@pytest.mark.parametrize("trained", ["models:/chat/1"], indirect=True)
@pytest.mark.parametrize("mounted_on", ["an empty folder", "nothing"])
def test_a_folder_that_is_not_mounted_is_a_registry_that_does_not_answer(trained: Workspace, mounted_on: str) -> None:
    """It says nothing of its models: what serves one goes on, where one that was removed would be let go."""
    assert trained.run().code == 0
    config, registry = load_config(trained.config), trained.root / "registry"
    refuse_tainted(config)
    registry.rename(trained.root / "elsewhere")
    if mounted_on == "an empty folder":
        registry.mkdir()
    with pytest.raises(ResourceError, match="is it mounted"):
        refuse_tainted(config)
    told = trained.call("status")
    assert told.code == 0 and "is it mounted?; going by models:/chat/1, as run" in told.err
    assert trained.call("run").code == 1


@pytest.mark.parametrize("trained", ["models:/chat/1"], indirect=True)
def test_a_damaged_table_of_runs_is_named_where_the_registry_is_away_too(trained: Workspace) -> None:
    assert trained.run().code == 0
    registry_at(trained, AWAY)
    for part in (trained.root / "state" / "runs").rglob("*.parquet"):
        part.write_bytes(b"torn")
    told = trained.call("status")
    assert told.code == 1 and "table 'runs' is damaged" in told.body["error"]["message"], told.body
