"""The bodies of requests. Their errors name the field and never quote its value: it may be a text."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.config_sections import SearchMode

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=2048)]
T = TypeVar("T", bound=BaseModel)


class BadRequest(Exception):
    """A body that cannot be used; the message names the field."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EmbeddingsRequest(_Request):
    """``POST /v1/embeddings``, as clients of OpenAI send it. ``user`` is taken and not used."""

    input: Text | Texts
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class EmbedRequest(_Request):
    """``POST /embed``, as clients of text-embeddings-inference send it. Texts that are too long are cut, as always."""

    inputs: Text | Texts
    normalize: bool = True
    truncate: bool = True
    prompt_name: str | None = None
    dimensions: int | None = None


class SearchBodyRequest(_Request):
    """``POST /search``: the options of ``embedmill search``, by ids."""

    query: Text
    team: str | None = None
    channels: list[str] = []
    kind: Literal["message", "file"] | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    mode: SearchMode | None = None
    authors: list[str] = []
    thread: str | None = None
    since: str | None = None
    until: str | None = None
    public: bool = False
    mentions: list[str] = []
    has_file: bool = False
    languages: list[str] = []
    rerank: bool = True


def parse(kind: type[T], body: bytes) -> T:
    """A body as one of the above. Raises BadRequest."""
    try:
        return kind.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise BadRequest("the body is no JSON") from None
    except ValidationError as error:
        faults = dict.fromkeys(_fault(one) for one in error.errors(include_input=False, include_url=False))
        raise BadRequest("; ".join(faults)) from None


def _fault(error: Any) -> str:
    # A union's branches follow in the location: of a text or a list of texts one line is enough.
    field = ".".join(str(part) for part in error["loc"][:1]) or "the body"
    return f"{field}: {_PLAIN.get(error['type'], error['msg'])}"


_PLAIN = {
    "extra_forbidden": "unknown field",
    "string_type": "must be a text or a list of texts",
    "list_type": "must be a text or a list of texts",
    "string_too_short": "is empty",
    "missing": "is missing",
}
