"""What an encoder is opened by: plain, picklable, free of secrets, so that it may travel to any worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from embedding.models.prompts import PromptOverrides, Purpose
from embedding.models.stored import StoredModel


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """A managed model: where it is, what it takes in one request, and what it costs. The section [model.remote].

    ``max_tokens`` is the longest chunk, counted with the tokenizer of ``model.name``; ``dim`` the width of a vector.
    ``model`` is the service's name of it (for SageMaker the endpoint's). ``url`` is the server's address, or replaces
    the address that AWS has for a region. Times are in seconds. The key of an HTTP service is read from the
    environment variable ``api_key_env`` where the encoder runs; AWS credentials come by its own chain.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}  # for the configuration, which validates it

    model: Annotated[str, MinLen(1)] = field(
        metadata={"about": "the service's name of the model; for SageMaker the endpoint's"}
    )
    dim: Annotated[int, Gt(0)] = field(metadata={"about": "width of a vector", "unit": "numbers"})
    max_tokens: Annotated[int, Gt(0)] = field(
        default=256, metadata={"about": "longest chunk, counted with the tokenizer of `model.name`", "unit": "tokens"}
    )
    url: str = field(
        default="",
        metadata={"about": "address of an HTTP server, or in place of the address that AWS has for a region"},
    )
    dialect: Literal["openai", "tei"] = field(
        default="openai",
        metadata={
            "about": "what an HTTP server speaks: OpenAI's `/v1/embeddings`, or text-embeddings-inference's `/embed`"
        },
    )
    region: str = field(default="", metadata={"about": "AWS region; empty is that of AWS's own chain"})
    normalise: bool = field(default=True, metadata={"about": "bring vectors to length 1"})
    request_texts: Annotated[int, Gt(0)] = field(
        default=64, metadata={"about": "of one request, at most", "unit": "texts"}
    )
    request_tokens: Annotated[int, Gt(0)] = field(
        default=8_192, metadata={"about": "of one request, at most", "unit": "tokens"}
    )
    concurrency: Annotated[int, Gt(0)] = field(
        default=16, metadata={"about": "under way at once, at most", "unit": "requests"}
    )
    timeout: Annotated[float, Gt(0)] = field(default=30.0, metadata={"about": "of one request", "unit": "seconds"})
    attempts: Annotated[int, Gt(0)] = field(
        default=8,
        metadata={"about": "of one request, before its texts go to quarantine or the run fails", "unit": "attempts"},
    )
    usd_per_million_tokens: Annotated[float, Ge(0)] = field(
        default=0.0, metadata={"about": "price, for estimates and reports", "unit": "USD"}
    )
    api_key_env: str = field(
        default="EMBEDMILL_HTTP_API_KEY",
        metadata={
            "about": "name of the environment variable with the key of an HTTP service, read where the encoder runs"
        },
    )


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Backend and model of an encoder.

    ``threads`` is the CPU threads it may use, ``batch_tokens`` bounds rows x longest row (None leaves it to the
    backend), ``max_tokens`` is where the model cuts a text off, ``dim`` the width of its vectors. ``cache`` is a folder
    of this model alone, for its converted graphs and the gate's verdicts. ``precision`` is chosen by the gate where it
    is "". ``purpose`` matters to models that embed a query in another way than a document; ``prompts`` stand in place
    of the model's own. ``stored`` is where ``model`` is copied from, on a machine that has none yet.
    """

    backend: str
    model: Path
    cache: Path
    max_tokens: int
    dim: int
    threads: int = 1
    batch_tokens: int | None = None
    precision: str = ""
    remote: RemoteSettings | None = None
    purpose: Purpose = "document"
    prompts: PromptOverrides = PromptOverrides()
    stored: StoredModel | None = None

    @property
    def told(self) -> tuple[str, int]:
        """The model's name and dimension, as others are told them."""
        return self.remote.model if self.remote else self.model.name, self.dim

    def fetch(self) -> None:
        """Copy the model to this machine, if it has none yet. Raises ResourceError."""
        if self.stored is not None:
            self.stored.fetch()
