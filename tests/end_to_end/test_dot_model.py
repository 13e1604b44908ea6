"""A model whose vectors are compared by their dot product: from the run to the search, and into another version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.encoders.backends import BACKENDS
from embedding.encoders.fidelity import probes
from embedding.errors import SpaceMismatchError
from jobs.commands.reindex import reindex
from jobs.commands.run import run
from jobs.commands.search import search
from jobs.commands.verify import verify
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.scope import Scope
from jobs.search.searcher import Query
from jobs.telemetry.progress import Progress
from tests.support.in_process import encoding_here
from tests.support.model_families import dot_model
from tests.support.model_folders import changed
from tests.support.workspace import TEAM, Workspace, message

TEXTS = [text[:200] for text in probes()[:40]]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Forty messages, indexed by such a model in Milvus Lite."""
    root = tmp_path_factory.mktemp("dot")
    model = dot_model(root)
    workspace = Workspace(root / "ws", backend="torch", files=False)
    workspace.config.write_text(workspace.config.read_text().replace("[model]\n", f'[model]\nname = "{model}"\n'))
    workspace.day("general", [message(n, text) for n, text in enumerate(TEXTS)])
    workspace.day("random", [])
    with encoding_here(), pytest.MonkeyPatch.context() as patched:
        patched.setitem(BACKENDS, "torch", replace(BACKENDS["torch"], precisions=lambda: ("f32",)))
        opened(workspace, run)
        yield workspace


def opened(workspace: Workspace, command: Any, *given: Any) -> Any:
    pipeline = Pipeline(load_config(workspace.config), Progress())
    try:
        return command(pipeline, *(given or (Scope(),)))
    finally:
        pipeline.close()


def test_a_search_orders_by_exact_dot_products_and_the_index_is_verified(space: Workspace) -> None:
    from sentence_transformers import SentenceTransformer

    pipeline = Pipeline(load_config(space.config), Progress())
    rows = pipeline.state.read("chunks", ["chunk_id", "text"]).to_pylist()
    model = SentenceTransformer(pipeline.config.model.name, device="cpu", local_files_only=True)
    held = model.encode_document([row["text"] for row in rows])
    lengths = np.linalg.norm(held, axis=1)
    assert model.similarity_fn_name == "dot"
    for asked in ("Who has the key?", "harbour " * 5, "明日の会議"):
        query = model.encode_query(asked)
        products, cosines = held @ query, held @ query / lengths
        hits = search(pipeline, Query(asked, TEAM, k=20, mode="dense")).hits
        assert [hit.chunk_id for hit in hits] == [rows[at]["chunk_id"] for at in np.argsort(-products)[:20]]
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(products)[::-1][:20], rtol=1e-3)
        assert not np.array_equal(np.argsort(-products)[:20], np.argsort(-cosines)[:20]), "or cosine would do"
    index = pipeline.index()
    assert index.metric_of(index.versions()[0]) == pipeline.space.metric == "dot"
    pipeline.close()
    found = opened(space, verify)
    assert (found.status, sum(found.differences.values())) == ("ok", 0) and found.sampled_vectors >= len(rows) / 2


def test_the_gate_compares_as_the_model_does(space: Workspace) -> None:
    """A new version has the metric, and its searches are judged by exact dot products."""
    body = opened(space, reindex)
    assert body.activated and body.gate is not None
    assert {check.name: check.value for check in body.gate.checks}["recall at 10"] == 1.0


def test_the_same_weights_by_cosine_are_another_space(space: Workspace) -> None:
    """The last test here: it changes the model."""
    model = Path(load_config(space.config).model.name)
    changed(model, "config_sentence_transformers.json", similarity_fn_name="cosine")
    with pytest.raises(SpaceMismatchError, match="holds space"):
        opened(space, run)
