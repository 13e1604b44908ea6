"""A whole run with a managed model: vectors from its server, its cost in the report, and one line when it is down."""

from __future__ import annotations

import pytest

from tests.support.services import DIM, POISON, serving
from tests.support.workspace import Workspace, message


def _remote(workspace: Workspace, url: str) -> None:
    section = (
        f'[model.remote]\nmodel = "a-model"\ndim = {DIM}\nurl = "{url}"\nattempts = 3\nusd_per_million_tokens = 2.0\n'
    )
    text = workspace.config.read_text().replace('backend = "hash"', 'backend = "http"')
    workspace.config.write_text(text + section)


@pytest.mark.slow
def test_run_over_a_service(workspace: Workspace) -> None:
    workspace.day("general", [*workspace.messages("general"), message(700, f"{POISON} is refused")])
    with serving(["throttle", "short"]) as server:
        _remote(workspace, server.url)
        ran = workspace.run()
        assert ran.code == 3, ran
        assert workspace.quarantine() == {"encoder_fails": 1}
        assert ran.body["chunks"]["embedded"] == 8 == ran.body["index_rows"]["after"]
        cost = ran.body["cost"]
        assert (cost["texts"], cost["tokens"]) == (8, server.billed) and cost["retries"] >= 1
        assert cost["usd"] == pytest.approx(server.billed * 2.0 / 1e6)
        assert workspace.verify().code == 0
        found = workspace.call("search", "Lunch is at noon in the big kitchen", "--team", "T01", "--k", "1")
        assert found.body["hits"][0]["text"] == "Lunch is at noon in the big kitchen"


@pytest.mark.slow
def test_one_text_that_the_service_fails_on_does_not_stop_the_others(workspace: Workspace) -> None:
    workspace.day("general", [*workspace.messages("general"), message(700, f"{POISON} breaks it")])
    with serving() as server:
        server.of_poison = "broken"
        _remote(workspace, server.url)
        ran = workspace.run()
        assert ran.code == 3, ran
        assert workspace.quarantine() == {"encoder_fails": 1}
        assert ran.body["chunks"]["embedded"] == 8 == ran.body["index_rows"]["after"]
        assert workspace.verify().code == 0

        server.plan = iter(["broken"] * 10_000)
        workspace.day("random", [message(n, f"{n} more") for n in range(5)])
        down = workspace.run()
        assert down.code == 1 and down.err.count("embedmill:") == 1, down
        assert workspace.quarantine() == {"encoder_fails": 1}, "no text is to blame"


@pytest.mark.slow
def test_a_service_that_is_down_ends_the_run_with_one_line(workspace: Workspace) -> None:
    with serving() as server:
        _remote(workspace, server.url)
    ran = workspace.run()
    assert ran.code == 1, ran
    assert ran.err.count("embedmill:") == 1 and "did not answer in 3 attempts" in ran.err
    assert workspace.quarantine() == {}, "no text is to blame"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dims = 3", "model.remote.dims: unknown key"),
        ("concurrency = 0", "model.remote.concurrency: Input should be greater than 0"),
        ('timeout = "long"', "model.remote.timeout: Input should be a valid number"),
    ],
)
def test_a_wrong_key_of_the_service_is_named(workspace: Workspace, line: str, said: str) -> None:
    _remote(workspace, "http://127.0.0.1:9")
    workspace.config.write_text(workspace.config.read_text() + line + "\n")
    ran = workspace.run()
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1


def test_what_is_missing_in_the_configuration_is_named(workspace: Workspace) -> None:
    workspace.config.write_text(workspace.config.read_text().replace('backend = "hash"', 'backend = "bedrock"'))
    ran = workspace.run()
    assert ran.code == 2 and "[model.remote]" in ran.err
