"""The dashboards as they are committed, and as their generator makes them."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from tests.support.paths import ROOT

_FOLDER = ROOT / "deploy" / "grafana"


def dashboards() -> dict[str, str]:
    """The text of each file."""
    return {file.name: file.read_text() for file in sorted(_FOLDER.glob("*.json"))}


def generated() -> dict[str, str]:
    """What the generator writes."""
    spec = importlib.util.spec_from_file_location("dashboards", _FOLDER / "dashboards.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return dict(sorted(pages.items()))


def expressions() -> list[str]:
    """Every expression of every panel."""
    panels = [panel for text in dashboards().values() for panel in json.loads(text)["panels"]]
    return [target["expr"] for panel in panels for target in panel["targets"]]
