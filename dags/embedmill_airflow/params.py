"""The DAGs' params: their schemas, and how they become options of a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

TEAM: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}


DATE: dict[str, Any] = {"type": ["null", "string"], "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{5,8})?$"}


INDEX: dict[str, Any] = {"type": ["null", "string"], "pattern": "^[A-Za-z][A-Za-z0-9_]{0,63}$"}


MODEL: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"}


TOKENS: dict[str, Any] = {"type": ["null", "integer"], "minimum": 0}


USD: dict[str, Any] = {"type": ["null", "number"], "minimum": 0}


MINUTES = USD


Arguments = Callable[[Mapping[str, Any]], Sequence[str]]


def option(name: str, value: Any) -> list[str]:
    """A command line option, repeated for a list and left out for None, False and an empty text."""
    if isinstance(value, list | tuple):
        return [word for one in value for word in option(name, one)]
    if isinstance(value, bool):
        return [name] if value else []
    return [] if value in (None, "") else [name, str(value)]


def budget(params: Mapping[str, Any]) -> list[str]:
    """What a run may cost."""
    return option("--max-tokens", params["max_tokens"]) + option("--max-usd", params["max_usd"])
