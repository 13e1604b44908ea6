"""What an encoder is opened by: plain, picklable, free of secrets, so that it may travel to any worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from embedding.models.folder import Purpose


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """A managed model: where it is, what it takes in one request, and what it costs. The section [model.remote].

    ``max_tokens`` is the longest chunk, counted with the tokenizer of ``model.name``; ``dim`` the width of a vector.
    ``model`` is the service's name of it (for SageMaker the endpoint's). ``url`` is the server's address, or replaces
    the address that AWS has for a region. Times are in seconds. The key of an HTTP service is read from the
    environment variable ``api_key_env`` where the encoder runs; AWS credentials come by its own chain.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}  # for the configuration, which validates it

    model: Annotated[str, MinLen(1)]
    dim: Annotated[int, Gt(0)]
    max_tokens: Annotated[int, Gt(0)] = 256
    url: str = ""
    dialect: Literal["openai", "tei"] = "openai"
    region: str = ""
    normalise: bool = True
    request_texts: Annotated[int, Gt(0)] = 64
    request_tokens: Annotated[int, Gt(0)] = 8_192
    concurrency: Annotated[int, Gt(0)] = 16
    timeout: Annotated[float, Gt(0)] = 30.0
    attempts: Annotated[int, Gt(0)] = 8
    usd_per_million_tokens: Annotated[float, Ge(0)] = 0.0
    api_key_env: str = "EMBEDMILL_HTTP_API_KEY"


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Backend and model of an encoder.

    ``threads`` is the CPU threads it may use, ``batch_tokens`` bounds rows x longest row, ``max_tokens`` is where the
    model cuts a text off, ``dim`` the width of its vectors. ``cache`` is a folder of this model alone, for its
    converted graphs and the gate's verdicts. ``precision`` is chosen by the gate where it is "". ``purpose`` matters
    to models that embed a query in another way than a document.
    """

    backend: str
    model: Path
    cache: Path
    max_tokens: int
    dim: int
    threads: int = 1
    batch_tokens: int = 4096
    precision: str = ""
    remote: RemoteSettings | None = None
    purpose: Purpose = "document"
