"""The command ``promote``: let the champion be the challenger, if nothing speaks against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedding.errors import ConfigError
from jobs.bodies.models import PromoteBody
from jobs.registry import CHALLENGER, CHAMPION, NAME, Reference, open_registry
from jobs.training.measures import LEAST_PLANTED, PLANTED

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.registry.base import Registry


def promote(
    config: Config, name: str, *, alias: str = CHAMPION, version: int = 0, back: bool = False, check: bool = False
) -> PromoteBody:
    """Move an alias to the challenger, or to a ``version``, through the gate; with ``back`` to what it was before.

    With ``check`` the gate alone: nothing is moved, and ``reasons`` say what speaks against it. Raises ConfigError for
    a name, a version or a former champion that is not there.
    """
    if NAME.fullmatch(name) is None:
        raise ConfigError("NAME: use letters, digits, '_', '.' and '-'; begin with a letter or a digit")
    if NAME.fullmatch(alias) is None:
        raise ConfigError("--to: use letters, digits, '_', '.' and '-'; begin with a letter or a digit")
    registry = open_registry(config)
    if not registry.versions(name):
        raise ConfigError(f"NAME: no model {name} in {registry.where}; it has {', '.join(registry.names()) or 'none'}")
    standing = registry.standing(name, alias)
    if back:
        return _step_back(registry, name, alias, standing)
    number = registry.resolve(Reference(name, version or None, "" if version else CHALLENGER))
    reasons = _against(registry, name, number, config.training.max_exposure)
    moved = not reasons and not check
    if moved:
        registry.point(name, alias, number)
    return PromoteBody(
        model=str(Reference(name, number, "")),
        alias=alias,
        promoted=moved,
        reasons=tuple(reasons),
        former=str(Reference(name, standing[-1], "")) if standing else None,
    )


def _step_back(registry: Registry, name: str, alias: str, standing: list[int]) -> PromoteBody:
    if len(standing) < 2:
        now = Reference(name, standing[-1], "") if standing else "nothing"
        raise ConfigError(
            f"--back: {alias} of {name} stands for {now}, and stood for nothing before that; --version names another"
        )
    former, number = standing[-1], standing[-2]
    tainted = registry.taint(name, number)
    reasons = (_tainted(tainted.documents),) if tainted else ()
    if not reasons:
        registry.step_back(name, alias)
    return PromoteBody(
        model=str(Reference(name, number, "")),
        alias=alias,
        promoted=not reasons,
        reasons=reasons,
        former=str(Reference(name, former, "")),
    )


def _against(registry: Registry, name: str, version: int, limit: float) -> list[str]:
    """Why a version may not be promoted, with figures; ``limit`` is the most bits that it may tell."""
    card, taint = registry.card(name, version), registry.taint(name, version)
    privacy, reasons = card.privacy, []
    for other, found in ((card.base, card.evaluation), (f"version {card.champion}, then the champion", card.beside)):
        if found is not None and found.verdict == "worse":
            reasons.append(
                f"it finds less than {other}: nDCG@10 {found.after:.4f} after {found.before:.4f} over "
                f"{found.questions:,} questions, difference {found.interval[0]:+.4f} to {found.interval[1]:+.4f}"
            )
    if privacy.exposure > limit:
        reasons.append(
            f"it tells of what it has seen: planted pairs are exposed by {privacy.exposure:.2f} bits, at most "
            f"{limit:g} may be (training.max_exposure)"
        )
    if privacy.planted < LEAST_PLANTED or not privacy.passed and privacy.exposure <= privacy.limit:
        reasons.append(
            f"too little says what it tells of its training: of {PLANTED} planted pairs it has seen {privacy.planted}, "
            f"at least {LEAST_PLANTED} are needed, and others beside them; train it for longer (training.epochs, "
            "training.max_steps)"
        )
    if taint is not None:
        reasons.append(_tainted(taint.documents))
    return reasons


def _tainted(documents: int) -> str:
    return f"{documents:,} of the documents that it has seen were purged since"
