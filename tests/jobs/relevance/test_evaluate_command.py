"""The commands `evaluate` and `search`, by the command line and over Milvus Lite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.config import load_config
from tests.support.command_line import invoke
from tests.support.workspace import START, TEAM, TEXTS, Workspace


def doc(number: int) -> str:
    return f"{TEAM}/m/C1/{START + number}.000100"


def golden(space: Workspace, **more: Any) -> str:
    file = space.root / "golden.jsonl"
    rows = [{"query": text, "team": TEAM, "relevant": {doc(n): 1}} | more for n, text in enumerate(TEXTS[:4])]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_the_answer_is_that_of_the_contract_and_is_compared_with_later(ran: Workspace, tmp_path: Path) -> None:
    before, page = tmp_path / "before.json", tmp_path / "report.html"
    first = ran.call("evaluate", golden(ran), "--k", "3")
    assert first.code == 0 and set(first.body) >= {"index", "space_id", "mode", "overall", "modes", "slices"}
    overall = first.body["overall"]
    assert (overall["queries"], overall["ndcg@10"], overall["recall@10"], overall["mrr@10"]) == (4, 1.0, 1.0, 1.0)
    assert overall["recall_at"] == {"3": 1.0} and first.body["modes"]["hybrid"] == overall
    before.write_text(json.dumps(first.body))
    again = ran.call("evaluate", golden(ran), "--against", str(before), "--html", str(page), "--mode", "dense")
    assert again.body["against"]["verdict"] == "no difference" and "<table>" in page.read_text()
    for said in (json.dumps(first.body), first.err, page.read_text()):
        assert not any(text in said for text in TEXTS)
    told = invoke(["evaluate", golden(ran), "--config", str(ran.config)])
    assert told.exit_code == 0 and "nDCG@10" in told.stdout and "100.0 (100.0-100.0)" in told.stdout
    assert not any(text in told.output for text in TEXTS)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--team", "T01"], "--team: is for a BEIR folder"),
        (["--doc-id", "{id}"], "--doc-id: is for a BEIR folder"),
        (["--html", "missing/report.html"], "--html: missing/report.html cannot be written"),
        (["--index", "messages__v9"], "there is no version 'messages__v9'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments: list[str], fault: str, ran: Workspace) -> None:
    done = ran.call("evaluate", golden(ran), *arguments)
    assert done.code == 2 and fault in done.body["error"]["message"], done


def test_a_beir_folder_needs_a_team(ran: Workspace, tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\thandbook\t1\n")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "how does a locker open?"}))
    assert "--team: is missing" in ran.call("evaluate", str(tmp_path)).body["error"]["message"]
    found = ran.call("evaluate", str(tmp_path), "--team", TEAM, "--doc-id", "{team}/f/{id}.md").body
    assert found["golden"]["not_in_index"] == 0 and list(found["slices"]["kind"]) == ["file"]
    nowhere = ran.call("evaluate", str(tmp_path), "--team", TEAM)
    assert nowhere.code == 2 and "no question has a relevant document" in nowhere.body["error"]["message"]


def test_a_search_says_its_mode_and_takes_one(ran: Workspace) -> None:
    asked = ("search", TEXTS[0], "--team", TEAM)
    assert ran.call(*asked).body["mode"] == ran.call(*asked, "--hybrid").body["mode"] == "hybrid"
    both = ran.call(*asked, "--dense", "--hybrid")
    assert both.code == 2 and both.body["error"]["message"] == "--dense and --hybrid: give one of them"
    ran.config.write_text(ran.config.read_text() + '[search]\nmode = "lexical"\n')
    found = ran.call(*asked).body
    assert found["mode"] == "lexical" and found["hits"][0]["text"] == TEXTS[0]
    assert ran.call(*asked, "--dense").body["mode"] == "dense"


def test_a_reranker_that_is_not_there_costs_the_answer_nothing_but_its_order(ran: Workspace) -> None:
    rerank = '{kind = "http", url = "http://127.0.0.1:9", timeout_seconds = 1.0}'
    plain = ran.call("search", TEXTS[0], "--team", TEAM).body
    assert "reranked" not in plain
    ran.config.write_text(ran.config.read_text() + f"[search]\nrerank = {rerank}\n")
    found = ran.call("search", TEXTS[0], "--team", TEAM).body
    assert (found["reranked"], found["rerank_reason"]) == (False, "ConnectError") and found["hits"] == plain["hits"]
    told = invoke(["search", TEXTS[0], "--team", TEAM, "--config", str(ran.config)])
    assert told.stdout.endswith("not reranked: ConnectError\n")
    assert "reranked" not in ran.call("search", TEXTS[0], "--team", TEAM, "--no-rerank").body


@pytest.mark.parametrize(
    ("rerank", "fault"),
    [
        ('{kind = "http"}', "search.rerank.url: Field required"),
        ('{kind = "http", url = "tei:80"}', "search.rerank.url: give http(s)://host:port"),
        ('{kind = "http", url = "http://h:99999"}', "search.rerank.url: give http(s)://host:port"),
        (
            '{kind = "http", url = "http://u:pw@h"}',
            "search.rerank.url: give no user, password or query here; set EMBED",
        ),
        ('{kind = "cross-encoder", path = "m", url = "x"}', "search.rerank.url: unknown key"),
        ('{kind = "magic"}', "search.rerank: "),
        ('{kind = "http", url = "http://h", top = 0}', "search.rerank.top: "),
    ],
)
def test_a_wrong_key_of_a_reranker_is_named(rerank: str, fault: str, workspace: Workspace) -> None:
    workspace.config.write_text(workspace.config.read_text() + f"[search]\nrerank = {rerank}\n")
    done = workspace.call("config")
    assert done.code == 2 and fault in done.body["error"]["message"], done


def test_a_token_comes_by_the_environment_and_is_masked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rerank = '{kind = "http", url = "http://h", api = "cohere"}'
    workspace.config.write_text(workspace.config.read_text() + f"[search]\nrerank = {rerank}\n")
    monkeypatch.setenv("EMBEDMILL__SEARCH__RERANK__TOKEN", "s3cret")
    shown = {one["key"]: one["value"] for one in workspace.call("config").body["settings"]}
    assert (shown["search.rerank.token"], shown["search.rerank.url"]) == ("***", "http://h")
    section: Any = load_config(workspace.config).search.rerank
    assert section.token.get_secret_value() == "s3cret" and "s3cret" not in repr(section)
