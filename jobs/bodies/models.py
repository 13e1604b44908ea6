"""What `train` and `promote` answer, and the card that a registered model carries. No text is in any of it."""

from __future__ import annotations

from jobs.bodies.base import Absent, Body


class ComparedBody(Body):
    """nDCG@10 of the same questions by the base and by the tuned model; ``interval`` is of the difference, at 99 %."""

    questions: int
    before: float
    after: float
    interval: tuple[float, float]
    p_value: float
    verdict: str


class PrivacyBody(Body):
    """How much a model tells of what it was trained on.

    ``exposure``: bits by which planted pairs are found sooner than those that were made alike and not trained on; 0 is
    nothing, ``limit`` is the most that may be promoted. ``membership``: how often a trained pair has a larger gain over
    the base than one that was held out; 0.5 is by chance. ``inversion``: share of a trained text's words that the
    nearest of the held-out texts gives away, by vectors of the base and of the tuned model.
    """

    planted: int
    exposure: float
    limit: float
    membership: float
    passed: bool
    inversion: Absent[tuple[float, float]] = None


class PromiseBody(Body):
    """Differential privacy of a training, of each thread in it: (``epsilon``, ``delta``), by so much ``noise``."""

    epsilon: float
    delta: float
    noise: float


class TrainingBody(Body):
    """How a model was made. ``pairs`` are those that it was trained on, ``held_out`` those that it is measured by.

    ``promise`` is of this training alone: what the base was trained on is told as before.
    """

    source: str
    pairs: int
    held_out: int
    documents: int
    settings: dict[str, str | int | float | bool | tuple[int, ...] | None]
    steps: int
    tokens: int
    seconds: float
    peak_mb: float
    promise: Absent[PromiseBody] = None


class Card(Body):
    """What is known of a registered model. ``manifest`` is the digest of the list of documents that it has seen.

    ``beside`` compares it with the version that was the ``champion`` when it was made, where there was one. A model of
    fewer layers has ``speed``: texts per second by the base and by itself, on the machine that trained it.
    """

    name: str
    version: int
    space_id: str
    base: str
    base_space_id: str
    made_at: str
    code: str
    licence: str
    manifest: str
    training: TrainingBody
    evaluation: ComparedBody
    privacy: PrivacyBody
    champion: Absent[int] = None
    beside: Absent[ComparedBody] = None
    speed: Absent[tuple[float, float]] = None


class Taint(Body):
    """A purge of documents that a model has seen."""

    run_id: str
    purged_at: str
    documents: int


class TrainBody(Body):
    """`train`: ``model`` is what `model.name` takes; the rest of the card beside the figures of the contract."""

    model: str
    space_id: str
    steps: int
    seconds: float
    peak_mb: float
    pairs: int
    held_out: int
    evaluation: ComparedBody
    privacy: PrivacyBody
    beside: Absent[ComparedBody] = None
    speed: Absent[tuple[float, float]] = None
    promise: Absent[PromiseBody] = None


class PromoteBody(Body):
    """`promote`: whether ``alias`` stands for ``model`` now, and why not. ``former`` is what it stood for before.

    With `--check` nothing is moved: without ``reasons`` it may be.
    """

    model: str
    alias: str
    promoted: bool
    reasons: tuple[str, ...]
    former: Absent[str] = None
