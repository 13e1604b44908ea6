"""The default configuration over real chats, from the export to the answers: far above texts alone, and above words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def chats(shared_data: Path) -> Path:
    folder = shared_data / "chat" / "locomo"
    if not folder.is_dir():
        pytest.skip("the chats in ../shared/data/chat are not here")
    return folder


@pytest.fixture(scope="module")
def config(chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("relevance") / "embedmill.toml"
    file.write_text(
        f'[[sources]]\nkind = "slack_export"\nuri = "{chats / "export"}"\nteam_id = "LOCOMO"\n'
        '[index]\nuri = "index.db"\n[state]\nuri = "state"\n'
    )
    embedmill(file, "run")
    return file


def embedmill(config: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments, "--config", str(config), "--json"],
        cwd=config.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def percent(scores: dict[str, float]) -> tuple[float, float]:
    return 100 * scores["ndcg@10"], 100 * scores["recall@10"]


def test_questions_within_a_chat(chats: Path, config: Path) -> None:
    modes = embedmill(config, "evaluate", str(chats / "questions.jsonl"))["modes"]
    ndcg, recall = percent(modes["hybrid"])
    assert ndcg >= 49
    assert recall >= 69
    assert ndcg >= percent(modes["lexical"])[0] + 3
    assert ndcg >= percent(modes["dense"])[0] + 15


def test_questions_over_all_chats_of_the_team(chats: Path, config: Path) -> None:
    asked = [json.loads(line) for line in (chats / "questions.jsonl").read_text().splitlines()]
    golden = config.parent / "team.jsonl"
    golden.write_text("".join(json.dumps({**one, "channel": []}) + "\n" for one in asked))
    ndcg, recall = percent(embedmill(config, "evaluate", str(golden), "--mode", "hybrid")["overall"])
    assert ndcg >= 46.5
    assert recall >= 66
