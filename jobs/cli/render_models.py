"""What a person reads of ``train`` and ``promote``."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.bodies.models import PrivacyBody, PromoteBody, TrainBody
from jobs.cli.render import table


def trained(body: TrainBody) -> str:
    """The model, and what it is worth."""
    privacy = body.privacy
    rows = [
        ("trained", f"{body.pairs:,} pairs in {body.steps:,} steps, {body.seconds:,.0f} s, {body.peak_mb:,.0f} MB"),
        *(
            (
                title,
                f"nDCG@10 {found.before:.4f} before, {found.after:.4f} now over {found.questions:,} questions: "
                f"{found.verdict} (difference {found.interval[0]:+.4f} to {found.interval[1]:+.4f})",
            )
            for title, found in (("than its base", body.evaluation), ("than the champion", body.beside))
            if found is not None
        ),
        (
            "privacy",
            f"planted pairs exposed by {privacy.exposure:.2f} bits, at most {privacy.limit:g} may be; "
            f"membership {privacy.membership:.2f} (0.5 is chance)" + _given_away(privacy),
        ),
        *(() if privacy.passed else [("promote", "refuses it as it is; `embedmill promote NAME --check` says why")]),
        *_promised(body),
        ("space", body.space_id),
    ]
    return f"{body.model} is the challenger\n" + table(rows)


def _promised(body: TrainBody) -> Iterator[tuple[str, str]]:
    if body.promise is not None:
        told = body.promise
        yield "promised", f"of any thread it tells at most epsilon {told.epsilon:g}, delta {told.delta:.2g}"
    if body.speed is not None:
        base, own = body.speed
        yield "speed", f"{own:,.0f} texts/s, {own / base:.2f} x its base"


def _given_away(privacy: PrivacyBody) -> str:
    if privacy.inversion is None:
        return ""
    before, now = privacy.inversion
    return f"; the nearest other text gives away {now:.0%} of a text's words ({before:.0%} by the base)"


def promoted(body: PromoteBody) -> str:
    """What an alias stands for now."""
    if body.promoted:
        return f"{body.alias} is {body.model}" + (f", after {body.former}" if body.former else "")
    if not body.reasons:
        return f"{body.model} may be {body.alias}"
    return f"{body.model} is REFUSED:\n" + table([("", reason) for reason in body.reasons])
