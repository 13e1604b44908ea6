"""Small trainings: pairs that speak each of a thing of its own, and a workspace whose model is tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.training.recipe import Recipe
from tests.support.model_families import FAMILIES
from tests.support.workspace import Workspace

RECIPE = Recipe("mnrl", True, 2, 8, 32, 1e-3, 0.1, (), 0, 1, 0, 3, 0, 1.0, 0, 0.0, 1, "f32")
WORDS = [
    "harbour",
    "locker",
    "parcel",
    "kitchen",
    "signing",
    "key",
    "backup",
    "disk",
    "courier",
    "door",
    "machine",
    "coffee",
    "app",
    "code",
    "noon",
    "friday",
]


def written(folder: Path, count: int = 40, *more: dict[str, Any]) -> Path:
    """A file of pairs; each speaks of a thing that no other does."""
    lines = [
        {
            "anchor": f"where is the {WORDS[n % 16]} of floor {n}",
            "positive": f"the {WORDS[n % 16]} of floor {n} is by the {WORDS[(n * 7 + 3) % 16]}",
        }
        for n in range(count)
    ]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in (*lines, *more)))
    return file


def with_tiny_model(workspace: Workspace) -> Workspace:
    """A workspace whose model is tiny, of random weights."""
    folder = FAMILIES["bert"](workspace.root / "tiny")
    text = workspace.config.read_text().replace('backend = "hash"', f'backend = "torch"\nname = "{folder}"')
    workspace.config.write_text(text + "[training]\nbatch_size = 8\nmax_tokens = 32\nthreads = 1\n")
    return workspace
