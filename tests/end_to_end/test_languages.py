"""Languages from the sources to the search, and in a state whose tables lack the column."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from jobs.commands.run import run
from jobs.commands.search import search
from jobs.commands.verify import verify
from jobs.scope import Scope
from jobs.search.searcher import Query
from jobs.state.tables import TABLES
from tests.support.in_process import open_pipeline, without_ray
from tests.support.workspace import TEAM, Workspace, message

ENGLISH, GERMAN, SHORT = "Does anyone have the key of the boathouse?", "Der Schlüssel hängt hinter der Tür.", "thanks!"


def made_earlier(root: Path, name: str, *, without: list[str], **columns: str) -> None:
    """Have a table be as an earlier release left it: without some columns, and with other values in others."""
    rows = pa.table(DeltaTable(str(root / name)).to_pyarrow_dataset().to_table()).drop_columns(without)
    for column, value in columns.items():
        rows = rows.set_column(rows.column_names.index(column), column, pa.array([value] * len(rows), pa.string()))
    where = TABLES[name].stored_by or None
    write_deltalake(str(root / name), rows, mode="overwrite", schema_mode="overwrite", partition_by=where)


def test_a_state_of_an_earlier_release_is_told_its_languages_and_nothing_is_encoded(workspace: Workspace) -> None:
    workspace.day("general", [message(0, ENGLISH), message(1, GERMAN), message(2, SHORT)])
    with without_ray():
        first = run(open_pipeline(workspace.config), Scope()).body()
        root = open_pipeline(workspace.config).state.root
        made_earlier(root, "chunks", without=["language"], meta_hash="earlier")
        made_earlier(root, "published", without=[], meta_hash="earlier")
        made_earlier(root, "sources", without=[], reader="earlier")
        second = run(open_pipeline(workspace.config), Scope()).body()
        assert (second.chunks.embedded, second.chunks.reused, second.chunks.deleted) == (0, 0, 0)
        assert second.chunks.updated == second.chunks.total == first.chunks.total
        pipeline = open_pipeline(workspace.config)
        kept = pipeline.state.read("chunks", ["text", "language"]).to_pylist()
        told = {row["text"]: row["language"] for row in kept}
        assert (told[ENGLISH], told[GERMAN], told[SHORT]) == ("en", "de", "")
        for languages, texts in ((("de",), {GERMAN}), (("de", "en"), {ENGLISH, GERMAN}), (("fr",), set())):
            hits = search(pipeline, Query("key", TEAM, kind="message", languages=languages)).hits
            assert {hit.text for hit in hits} & {ENGLISH, GERMAN, SHORT} == texts
            assert {hit.language for hit in hits} <= set(languages)
        assert verify(pipeline, Scope()).status == "ok"
