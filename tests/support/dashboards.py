"""The dashboards as they are committed, and as their generator makes them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.text import Text

from tests.support.paths import ROOT

_FOLDER = ROOT / "deploy" / "grafana"
RUNS = ("capacity.json", "overview.json", "run.json")  # of series that commands tell
SERVING = ("serving.json",)


def dashboards() -> dict[str, str]:
    """The text of each file."""
    return {file.name: file.read_text() for file in sorted(_FOLDER.glob("*.json"))}


def generated() -> dict[str, str]:
    """What the generator writes."""
    pages: dict[str, str] = _script("dashboards").pages()
    return dict(sorted(pages.items()))


def draw(address: str, folder: Path, names: Sequence[str]) -> dict[str, set[str]]:
    """Draw some of them from a Prometheus into a folder; returns the words in each picture, by its file's name."""
    words = {}
    for name in names:
        figure = _script("render").draw(json.loads(dashboards()[name]), address, minutes=2.0)
        figure.savefig(folder / f"{Path(name).stem}.png", dpi=80)
        words[name] = {text.get_text() for axes in figure.axes for text in axes.findobj(Text)}
    return words


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expressions(names: Sequence[str] = (*RUNS, *SERVING)) -> list[str]:
    """Every expression of every panel of some of them."""
    panels = [panel for name in names for panel in json.loads(dashboards()[name])["panels"]]
    return [target["expr"] for panel in panels for target in panel["targets"]]
