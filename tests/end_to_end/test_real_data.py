"""Real data, whole: a public chat log as a Slack export, hundreds of files of 28 kinds, a retrieval corpus as a table."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.ids import CONVERSATION, document_id
from jobs.config import load_config
from jobs.state.state_folder import state_root
from jobs.state.store import State
from tests.support.workspace import Workspace

LINES = 27_500  # of the export, by its README: 25,473 said messages and 2,027 joins, leaves and topics
HOUSEKEEPING = 2_027


def _corpus(archive: Path, table: Path) -> int:
    with gzip.open(archive) as lines:
        rows = [orjson.loads(line) for line in lines]
    columns = {
        "id": [row["_id"] for row in rows],
        "body": [f"{row['title']} {row['text']}" for row in rows],
        "created": pa.array([1_600_000_000_000_000] * len(rows), pa.timestamp("us", tz="UTC")),
    }
    pq.write_table(pa.table(columns), table)
    return len(rows)


@pytest.mark.slow
def test_every_document_is_published_or_in_quarantine_with_a_reason(workspace: Workspace, shared_data: Path) -> None:
    rows = _corpus(shared_data / "retrieval" / "scifact" / "corpus.jsonl.gz", workspace.root / "corpus.parquet")
    files = sum(path.is_file() for path in (shared_data / "files").rglob("*"))
    workspace.config.write_text(f"""
[[sources]]
kind = "slack_export"
uri = "{shared_data / "slack-ubuntu.zip"}"
team_id = "T01"
[[sources]]
kind = "files"
uri = "{shared_data / "files"}"
team_id = "T02"
[[sources]]
kind = "table"
uri = "corpus.parquet"
team_id = "T03"
columns = {{ id = "id", text = "body", created_at = "created" }}
[model]
backend = "hash"
""")
    ran = workspace.run()
    assert ran.code == 3, ran.err
    documents = ran.body["documents"]
    assert documents["read"] == LINES + files + rows
    assert documents["skipped"]["housekeeping"] == HOUSEKEEPING

    state = State(state_root(load_config(workspace.config)))
    quarantine = state.read("quarantine").to_pylist()
    assert len(quarantine) == documents["quarantined"] + documents["ignored"] and all(
        row["reason"] for row in quarantine
    )
    chunks = state.read("published", ["chunk_id"])["chunk_id"].to_pylist()
    published = {document_id(chunk) for chunk in chunks if not re.match(CONVERSATION, chunk)}
    assert len(published) + len(quarantine) + sum(documents["skipped"].values()) == documents["read"]
    assert published.isdisjoint(row["key"] for row in quarantine)
    by_team = [sum(doc.startswith(team) for doc in published) for team in ("T01/m/", "T02/f/", "T03/t/")]
    assert sum(by_team) == len(published) and by_team[2] == rows and by_team[1] > files * 0.7

    chunks = ran.body["chunks"]
    assert ran.body["index_rows"]["after"] == chunks["total"] == chunks["embedded"] + chunks["reused"]
    assert workspace.verify().code == 0
    again = workspace.run()
    assert again.code == 3 and again.body["partitions"]["opened"] == 0
    assert again.body["chunks"]["unchanged"] == chunks["total"]
