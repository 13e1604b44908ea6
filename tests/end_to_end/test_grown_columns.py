"""A state of an earlier release, whose tables lack columns: the next run fills them, and encodes nothing for it."""

from __future__ import annotations

import pyarrow.compute as pc

from jobs.commands.run import run
from jobs.commands.search import search
from jobs.commands.verify import verify
from jobs.scope import Scope
from jobs.search.searcher import Query
from tests.support.former_state import made_earlier
from tests.support.in_process import open_pipeline, without_ray
from tests.support.workspace import TEAM, Workspace, folder_of, message

NEW = ["mentions", "has_file", "language"]


def test_columns_that_an_earlier_release_lacks_are_filled_and_nothing_is_encoded(workspace: Workspace) -> None:
    workspace.day("general", [message(0, "<@U1> has the key"), message(1, "The plan", files=[{"id": "F1"}])])
    with without_ray():
        first = run(open_pipeline(workspace.config), Scope()).body()
        root = folder_of(open_pipeline(workspace.config).state)
        made_earlier(root, "chunks", without=NEW, meta_hash="earlier")
        made_earlier(root, "published", without=[], meta_hash="earlier")
        made_earlier(root, "sources", without=[], reader="earlier")
        second = run(open_pipeline(workspace.config), Scope()).body()
        assert (second.chunks.embedded, second.chunks.reused, second.chunks.deleted) == (0, 0, 0)
        assert second.chunks.updated == second.chunks.total == first.chunks.total
        pipeline = open_pipeline(workspace.config)
        kept = pipeline.state.read("chunks", NEW)
        assert kept.num_rows == second.chunks.total and not any(pc.any(pc.is_null(kept[name])).as_py() for name in NEW)
        for asked, text in (({"mentions": ("U1",)}, "@Ada has the key"), ({"has_file": True}, "The plan")):
            assert [hit.text for hit in search(pipeline, Query("key", TEAM, **asked)).hits] == [text]
        found = verify(pipeline, Scope())
        assert found.status == "ok"
