"""The query service as Prometheus sees it: each panel has an answer, and an index that is killed wakes somebody."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.dashboards import SERVING, draw, expressions
from tests.support.milvus_server import MilvusServer
from tests.support.prometheus import MISSING, Prometheus, quick_waits, until
from tests.support.serving import Serving
from tests.support.workspace import TEAM, Workspace

pytestmark = [
    pytest.mark.usefixtures("encoder_here"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed (Debian): {MISSING}"),
]


@contextmanager
def watched(config: Path, folder: Path) -> Iterator[tuple[Serving, Prometheus]]:
    folder.mkdir()
    serving = Serving(config)
    try:
        chain = Prometheus(folder, quick_waits, engines={f"127.0.0.1:{serving.port}": "/metrics"})
        try:
            yield serving, chain
        finally:
            chain.stop()
    finally:
        serving.process.kill()
        serving.process.wait()


def test_each_panel_has_an_answer(ran: Workspace, tmp_path: Path) -> None:
    with watched(ran.config, tmp_path / "prometheus") as (serving, chain):
        asked = itertools.count()

        def answered() -> bool:
            new = {"query": f"lockers {next(asked)}", "team": TEAM}
            for path, body in (("/search", new), ("/embed", {"inputs": ["lockers", "lunch"]})):
                assert serving.post(path, body).status == 200
            return not unanswered(chain)

        until(answered, "an answer to each panel's query")
        for name, words in draw(chain.address, tmp_path, SERVING).items():
            assert "no data" not in words and "nan" not in words and len(words) > 10, name
        [reached] = chain.query("embedmill_serve_index_reached")
        assert (reached["metric"]["index"], reached["value"][1]) == ("messages", "1")
        assert "EmbedmillServeIndexLost" not in names(chain)


def test_an_index_that_is_killed_wakes_somebody(
    workspace: Workspace, milvus_server: MilvusServer, tmp_path: Path
) -> None:
    index = f'[index]\nuri = "{milvus_server.uri}"\nname = "watched"\n'
    workspace.config.write_text(workspace.config.read_text() + index)
    assert workspace.run().code == 0
    with watched(workspace.config, tmp_path / "prometheus") as (_, chain):
        until(lambda: chain.query("embedmill_serve_index_reached == 1"), "a sample")
        assert "EmbedmillServeIndexLost" not in names(chain)
        milvus_server.kill()
        until(lambda: "EmbedmillServeIndexLost" in names(chain), "the alert", 120)
        [alert] = [one for one in chain.fired if one["labels"]["alertname"] == "EmbedmillServeIndexLost"][:1]
        assert (alert["labels"]["severity"], alert["labels"]["index"]) == ("page", "watched")
        assert alert["annotations"]["runbook_url"] == "docs/runbook.md#embedmillserveindexlost"


def unanswered(chain: Prometheus) -> list[str]:
    """Expressions of the dashboard that Prometheus has no number for."""
    found = {one: chain.query(one.replace("$index", ".*")) for one in expressions(SERVING)}
    return [one for one, answers in found.items() if not answers or any(a["value"][1] == "NaN" for a in answers)]


def names(chain: Prometheus) -> set[str]:
    return {one["labels"]["alertname"] for one in chain.fired}
