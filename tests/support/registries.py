"""Models, cards and manifests for tests of registries."""

from __future__ import annotations

from pathlib import Path

from jobs.bodies.models import Card, ComparedBody, PrivacyBody, TrainingBody
from jobs.registry.base import Registry
from jobs.registry.manifest import Seen, manifest_of
from jobs.scope import iso

KEY = b"k" * 32
DAY = 86_400_000_000
SEEN = [
    Seen("T1/m/C1/1", "T1", "C1", 100 * DAY + 7),
    Seen("T1/m/C2/2", "T1", "C2", 200 * DAY + 7),
    Seen("T2/m/C1/1", "T2", "C1", 100 * DAY + 7),
]


def card(
    version: int,
    *,
    verdict: str = "better",
    beside: str = "better",
    exposure: float = 0.5,
    planted: int = 16,
    made_at: int = 0,
) -> Card:
    evaluation = ComparedBody(questions=9, before=0.5, after=0.4, interval=(-0.2, -0.1), p_value=0.001, verdict=verdict)
    return Card(
        name="chat",
        version=version,
        space_id="s",
        base="base",
        base_space_id="b",
        made_at=iso(made_at),
        code="0",
        licence="private",
        manifest="m",
        training=TrainingBody(
            source="pairs.jsonl",
            pairs=1,
            held_out=1,
            documents=3,
            settings={},
            steps=1,
            tokens=1,
            seconds=1.0,
            peak_mb=1.0,
        ),
        evaluation=evaluation,
        champion=1,
        beside=evaluation.model_copy(update={"verdict": beside}),
        privacy=PrivacyBody(
            planted=planted,
            exposure=exposure,
            limit=3.0,
            membership=0.6,
            inversion=(0.1, 0.1),
            passed=exposure <= 3.0 and planted >= 8,
        ),
    )


def model_in(folder: Path) -> Path:
    """The files of a model: not one that can be loaded, but with a folder and with bytes that are no text."""
    model = folder / "model"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "modules.json").write_text("[]")
    (model / "1_Pooling" / "config.json").write_bytes(b"\x00bytes\xff")
    return model


def files_of(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def add(registry: Registry, model: Path, name: str = "chat", **about: object) -> int:
    return registry.add(name, model, manifest_of(KEY, SEEN), lambda number: card(number, **about))  # type: ignore[arg-type]
