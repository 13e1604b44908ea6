"""What `doctor` answers."""

from __future__ import annotations

from typing import Literal

from jobs.bodies.base import Body

Health = Literal["ok", "warning", "failed"]


class Checked(Body):
    """One question: what was found, and of what is not well the ``fix``. ``seconds`` it took to find out."""

    name: str
    status: Health
    detail: str
    fix: str
    seconds: float


class DoctorBody(Body):
    """`doctor`: the worst of all checks, and each."""

    status: Health
    checks: tuple[Checked, ...]
