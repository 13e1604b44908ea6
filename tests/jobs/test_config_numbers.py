"""Numbers of the configuration: none is infinite or no number, none is true or false, and waits have an end."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import jobs.config
from embedding.encoders.spec import Batch, Endpoint, Fallback, RemoteSettings
from jobs.config_fields import Section
from tests.jobs.test_config import GOOD, fault

assert jobs.config.Config.model_fields  # every section is known


def sections(of: type[Section] = Section) -> Iterator[type[Section]]:
    for one in of.__subclasses__():
        yield one
        yield from sections(one)


def mentions(annotation: Any, kinds: tuple[type, ...]) -> bool:
    return annotation in kinds or any(mentions(inner, kinds) for inner in typing.get_args(annotation))


def fields(*kinds: type) -> list[tuple[type, str, str | None]]:
    """Section, key and unit of each key that takes one of these types, and nothing else but None."""
    found: list[tuple[type, str, str | None]] = []
    for one in sections():
        for key, field in one.model_fields.items() if one.__module__.startswith("jobs.config") else ():
            if mentions(field.annotation, kinds) and not mentions(field.annotation, (bool, str)):
                extra: Any = field.json_schema_extra or {}
                found.append((one, key, extra.get("unit")))
    for kept in (Endpoint, Fallback, Batch, RemoteSettings):
        hints = typing.get_type_hints(kept)
        named = dataclasses.fields(kept)
        found += [(kept, one.name, one.metadata.get("unit")) for one in named if mentions(hints[one.name], kinds)]
    return found


def refuses(section: Any, key: str, value: object) -> bool:
    try:
        TypeAdapter(section).validate_python({key: value})
    except ValidationError as error:
        return any(key in one["loc"] or f"{key}: " in one["msg"] for one in error.errors())
    return False


FLOATS = fields(float)


@pytest.mark.parametrize(("section", "key", "unit"), FLOATS, ids=[f"{one.__name__}.{key}" for one, key, _ in FLOATS])
def test_a_number_is_finite_and_a_time_that_is_waited_for_has_an_end(section: Any, key: str, unit: str | None) -> None:
    for value in (float("inf"), float("-inf"), float("nan"), "inf", "nan"):
        assert refuses(section, key, value), value
    assert refuses(section, key, 1e9) or unit != "seconds"


NUMBERS = [(one, key) for one, key, _ in fields(int, float) if issubclass(one, Section)]


@pytest.mark.parametrize(("section", "key"), NUMBERS, ids=[f"{one.__name__}.{key}" for one, key in NUMBERS])
def test_true_is_no_number(section: Any, key: str) -> None:
    assert refuses(section, key, True) and refuses(section, key, False)


REMOTE = '[model]\nbackend = "http"\n[model.remote]\nmodel = "m"\nurl = "https://a.example"\ndim = 8\n'
FALLBACK = '[[model.remote.fallbacks]]\nbackend = "http"\nmodel = "m"\nurl = "https://b.example"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{REMOTE}attempts = true\n", "model: remote.attempts: cannot be true"),
        (f"{REMOTE}usd_per_million_tokens = true\n", "model: remote.usd_per_million_tokens: cannot be true"),
        (f"{REMOTE}{FALLBACK}concurrency = true\n", "model: remote.fallbacks[0].concurrency: cannot be true"),
        (f"{REMOTE}normalise = true\n{FALLBACK}", "sources[0].uri: no such path: files"),  # nothing else
        ("[training]\nmatryoshka = [8, true]\n", "training: matryoshka[1]: cannot be true"),
    ],
)
def test_true_is_no_number_in_a_table_of_a_table_and_in_a_list(tmp_path: Any, text: str, said: str) -> None:
    assert fault(tmp_path, f"{GOOD}{text}") == said


KEY = 'jwt_key = "a-secret-of-the-tests-of-thirty-two-bytes"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requests = true\n", "serve: requests: cannot be true"),
        ("drain_seconds = inf\n", "serve.drain_seconds: "),
        (KEY + 'team_claim = ""\n', "serve: team_claim: name the claim with the team"),
        (KEY + "open = true\n", "serve: open: takes the body's word"),
    ],
)
def test_what_serve_cannot_do_is_one_line_that_names_the_key(tmp_path: Any, text: str, said: str) -> None:
    assert fault(tmp_path, f"{GOOD}[serve]\n{text}").startswith(said)
