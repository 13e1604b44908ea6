"""Languages from the sources to the search, and in a state whose tables lack the column."""

from __future__ import annotations

from contextlib import closing

import pytest

from jobs.commands.run import run
from jobs.commands.search import search
from jobs.commands.verify import verify
from jobs.scope import Scope
from jobs.search.searcher import Query
from tests.support.former_state import made_earlier
from tests.support.in_process import open_pipeline, without_ray
from tests.support.workspace import TEAM, Workspace, folder_of, message

ENGLISH, GERMAN, SHORT = "Does anyone have the key of the boathouse?", "Der Schlüssel hängt hinter der Tür.", "thanks!"


def test_a_state_of_an_earlier_release_is_told_its_languages_and_nothing_is_encoded(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.day("general", [message(0, ENGLISH), message(1, GERMAN), message(2, SHORT)])
    with without_ray():
        with closing(open_pipeline(workspace.config)) as pipeline:
            first, root = run(pipeline, Scope()).body(), folder_of(pipeline.state)
        made_earlier(root, "chunks", without=["language"], meta_hash="earlier")
        made_earlier(root, "published", without=[], meta_hash="earlier")
        made_earlier(root, "sources", without=[], reader="earlier")
        with closing(open_pipeline(workspace.config)) as pipeline:
            second = run(pipeline, Scope()).body()
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
        monkeypatch.setattr("jobs.cli.lookup.opened_pipeline", lambda config: closing(open_pipeline(config)))
        asked = ("search", "key", "--team", TEAM, "--kind", "message", "--language")
        found = workspace.call(*asked, "de-AT")
        assert found.code == 0, found.err
        (hit,) = found.body["hits"]
        assert (hit["text"], hit["language"]) == (GERMAN, "de")
        refused = workspace.call(*asked, "fr")
        assert refused.code == 2 and "--language: team 'T01' has no text in fr; there are de, en" in refused.err
