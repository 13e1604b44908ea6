"""The bodies of requests. Their errors name the field and never quote its value: it may be a text."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from embedding.errors import ConfigError
from jobs.config_sections import SearchMode
from jobs.scope import parse_moment

_MOST_TEXTS = 2048
_MOST_CHANNELS = 1000
_MOST_NAMES = 100  # of a filter; the index compares each row with each of them


class BadRequest(Exception):
    """A body that cannot be used; the message names the field."""


def _texts(value: object) -> object:
    """A text alone is a list of one. Raises PydanticCustomError for what is neither, token ids among it."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise PydanticCustomError("texts", "must be a text or a list of texts")
    return given


def _moment(value: object) -> object:
    """A date as microseconds. Raises PydanticCustomError."""
    if value is None:
        return None
    try:
        return parse_moment(value if isinstance(value, str) else "", "")
    except ConfigError:  # it quotes the value
        raise PydanticCustomError("date", "is not a date; write 2025-03-01 or 2025-03-01T12:00:00") from None


def _words(value: str) -> str:
    if not value.replace("\0", "").strip():
        raise PydanticCustomError("words", "give some words to search for")
    return value


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=_MOST_TEXTS), BeforeValidator(_texts)]
Names = Annotated[list[str], Field(max_length=_MOST_NAMES)]
Moment = Annotated[int | None, BeforeValidator(_moment)]
T = TypeVar("T", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EmbeddingsRequest(_Request):
    """``POST /v1/embeddings``, as clients of OpenAI send it. ``user`` is taken and not used."""

    input: Texts
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class EmbedRequest(_Request):
    """``POST /embed``, as clients of text-embeddings-inference send it.

    A text that is too long is cut at its end, or refused without ``truncate``. ``normalize`` is as the space says where
    it is not given.
    """

    inputs: Texts
    normalize: bool | None = None
    truncate: bool = True
    truncation_direction: Literal["right", "Right"] = "right"
    prompt_name: Literal["query"] | None = None
    dimensions: int | None = None


class SearchBodyRequest(_Request):
    """``POST /search``: the options of ``embedmill search``, by ids. ``since`` and ``until`` are then microseconds."""

    query: Annotated[Text, AfterValidator(_words)]
    team: str | None = None
    channels: Annotated[list[str], Field(max_length=_MOST_CHANNELS)] = []
    kind: Literal["message", "file"] | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    mode: SearchMode | None = None
    authors: Names = []
    thread: str | None = None
    since: Moment = None
    until: Moment = None
    public: bool = False
    mentions: Names = []
    has_file: bool = False
    languages: Names = []
    rerank: bool = True


def parse(kind: type[T], body: bytes) -> T:
    """A body as one of the above; null is taken as a field that is not given. Raises BadRequest."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("the body is no JSON") from None
    if not isinstance(given, dict):
        raise BadRequest("the body must be an object")
    if None in given.values():
        optional = {name for name, field in kind.model_fields.items() if not field.is_required()}
        given = {name: value for name, value in given.items() if value is not None or name not in optional}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        faults = dict.fromkeys(_fault(one) for one in error.errors(include_input=False, include_url=False))
        raise BadRequest("; ".join(faults)) from None


def _fault(error: Any) -> str:
    field, *inside = error["loc"]
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "list_type" or (kind == "string_type" and inside):
        said = "must be a list of texts"
    elif kind == "too_long":
        said = f"has more than {limits['max_length']:,} texts"
    else:
        said = _PLAIN.get(kind, error["msg"])
    return f"{field}: {said}"


_PLAIN = {
    "extra_forbidden": "unknown field",
    "string_type": "must be a text",
    "string_too_short": "is empty",
    "too_short": "is empty",
    "missing": "is missing",
}
