"""Reads a compose file as Compose does: variables filled in, and which of them it names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RULE = re.compile(r":?[-?+]")


class Unset(ValueError):
    """A variable that must be set is not; the text is the file's own message."""


def fill(text: str, environment: Mapping[str, str], seen: Callable[[str], None] = lambda name: None) -> str:
    """Fill in ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}`` and their kin; ``seen`` is told of each.

    Defaults may hold variables again. ``$$`` is a dollar.
    """
    out, at = "", 0
    while (dollar := text.find("$", at)) >= 0:
        out += text[at:dollar]
        at = dollar + 1
        if text[at : at + 1] == "$":
            out, at = out + "$", at + 1
        elif text[at : at + 1] == "{":
            end = _closing(text, at)
            out, at = out + _variable(text[at + 1 : end], environment, seen), end + 1
        else:
            name = _NAME.match(text, at)
            if name is None:
                raise ValueError(f"a lone $ in {text!r}; write $$")
            out, at = out + _variable(name[0], environment, seen), name.end()
    return out + text[at:]


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    raise ValueError(f"an open brace in {text!r}")


def _variable(inside: str, environment: Mapping[str, str], seen: Callable[[str], None]) -> str:
    name = _NAME.match(inside)
    if name is None:
        raise ValueError(f"no name in ${{{inside}}}")
    seen(name[0])
    value, rest = _value(environment, name[0]), inside[name.end() :]
    rule = _RULE.match(rest)
    if rest and rule is None:
        raise ValueError(f"no such rule: ${{{inside}}}")
    other = fill(rest[rule.end() :], environment, seen) if rule else ""
    missing = value is None or (bool(rule) and rest[0] == ":" and not value)
    if rule and rule[0][-1] == "+":
        return "" if missing else other
    if missing and rule and rule[0][-1] == "?":
        raise Unset(f"{name[0]}: {other}")
    return other if missing else str(value)


def _value(environment: Mapping[str, str], name: str) -> str | None:
    try:
        return environment[name]
    except KeyError:
        return None


def load(file: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """A compose file with its variables filled in."""
    found: dict[str, Any] = _each(yaml.safe_load(file.read_text()), lambda text: fill(text, environment))
    return found


def variables(file: Path) -> set[str]:
    """The names of all variables in a compose file, those in defaults included."""
    names: set[str] = set()
    set_all: defaultdict[str, str] = defaultdict(lambda: "x")
    _each(yaml.safe_load(file.read_text()), lambda text: fill(text, set_all, names.add))
    return names


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each(one, change) for one in value]
    if isinstance(value, dict):
        return {key: _each(one, change) for key, one in value.items()}
    return value
