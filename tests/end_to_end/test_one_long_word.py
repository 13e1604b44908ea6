"""A megabyte without a space: all of it is in chunks of the index, equal texts are one vector, and the run says what it is."""

from __future__ import annotations

import random
import string

import pyarrow.compute as pc
import pytest

from embedding.ids import file_id
from indexers import open_index
from indexers.base import SearchRequest
from jobs.cli import render
from jobs.config import load_config
from jobs.report import recorded
from jobs.state.store import State
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")
SIZE = 1_000_000
NAME = file_id(TEAM, "word.txt")


@pytest.mark.parametrize("letters", ["a", string.ascii_lowercase])
def test_a_megabyte_without_a_space_is_in_the_index_whole(ran: Workspace, letters: str) -> None:
    word = "".join(random.Random(3).choices(letters, k=SIZE))
    (ran.files / "word.txt").write_text(word)
    done = ran.run()
    assert done.code == 0
    state = State(ran.root / "state", hash_key="")
    chunks = state.dataset("chunks").to_table(None, pc.field("doc_id") == NAME).sort_by("chunk_no").to_pylist()
    ids = [f"{NAME}#{number}" for number in range(len(chunks))]
    assert [row["chunk_id"] for row in chunks] == ids and len(ids) > SIZE / 4096

    at = 0
    for row in chunks:  # each begins where the one before it ends, or earlier
        start = next((place for place in range(at, -1, -1) if word.startswith(row["text"], place)), None)
        assert start is not None and 0 < len(row["text"]) <= 4096
        at = start + len(row["text"])
    assert at == SIZE

    different = {row["text"]: row["content_hash"] for row in chunks}
    assert len(set(different.values())) == len(different), "a hash is of one text"
    counted = done.body["chunks"]
    assert (counted["embedded"], counted["embedded"] + counted["reused"]) == (len(different), len(chunks))
    assert done.body["tokens"]["unknown_texts"] == len(different), "no model of these words knows such a one"
    report = recorded(state, done.body["run_id"])
    assert report is not None and f"  unreadable  {len(different):,} texts are next to nothing" in render.run(report)

    config = load_config(ran.config)
    index = open_index("milvus", config.index_uri, config.index.name)
    rows = index.fetch("messages__v1", ids, SearchRequest(TEAM))
    index.close()
    assert {hit.chunk_id: hit.text for hit in rows} == {row["chunk_id"]: row["text"] for row in chunks}
    assert ran.verify().body["status"] == "ok"
    again = ran.run().body["chunks"]
    assert (again["embedded"], again["reused"], again["unchanged"]) == (0, 0, again["total"])
