"""What every body is made of: frozen, strict, written as one line of JSON."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
Number = int | float  # written as it is given: 0 stays 0, and 0.0 stays 0.0


def _is_none(value: object) -> bool:
    return value is None


Absent = Annotated[T | None, Field(exclude_if=_is_none)]


class Body(BaseModel):
    """Base of all. Values are taken as they are and never converted: a wrong type is an error of ours."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,  # of some hundred models a command needs a few
        strict=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )

    def to_json(self) -> str:
        """One line of JSON, spaces after ',' and ':', letters beyond ASCII as they are."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)


class ScopeBody(Body):
    """What the command was asked to look at; empty for everything. ``since`` is inside, ``until`` is not."""

    team: Absent[tuple[str, ...]] = None
    channel: Absent[tuple[str, ...]] = None
    since: Absent[str] = None
    until: Absent[str] = None
    kind: Absent[str] = None
