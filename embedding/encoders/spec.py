"""What an encoder is opened by: plain, picklable, free of secrets, so that it may travel to any worker."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from embedding.models.prompts import PromptOverrides, Purpose
from embedding.models.stored import StoredModel

_CONFIGURED = {"extra": "forbid", "allow_inf_nan": False}  # for the configuration, which validates what is set in it


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a managed model is asked, what it takes in one request, and what it costs.

    ``model`` is the service's name of it (for SageMaker the endpoint's). ``url`` is the server's address, or replaces
    the address that AWS has for a region. Times are in seconds. The key of an HTTP service is read from the
    environment variable ``api_key_env`` where the encoder runs; AWS credentials come by its own chain.
    """

    __pydantic_config__: ClassVar[Any] = _CONFIGURED

    model: Annotated[str, MinLen(1)] = field(
        metadata={"about": "the service's name of the model; for SageMaker the endpoint's"}
    )
    _: KW_ONLY
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
    request_texts: Annotated[int, Gt(0)] = field(
        default=64, metadata={"about": "of one request, at most", "unit": "texts"}
    )
    request_tokens: Annotated[int, Gt(0)] = field(
        default=8_192, metadata={"about": "of one request, at most", "unit": "tokens"}
    )
    concurrency: Annotated[int, Gt(0)] = field(
        default=16, metadata={"about": "under way at once, at most", "unit": "requests"}
    )
    timeout: Annotated[float, Gt(0), Le(3600)] = field(
        default=30.0, metadata={"about": "of one request", "unit": "seconds"}
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
class Fallback(Endpoint):
    """Another endpoint of the same space, asked where those before it cannot answer.

    ``[[model.remote.fallbacks]]``, in the order of preference. Width, normalisation and the longest chunk belong to the
    space and are those of ``[model.remote]``. Its vectors are used once they are proven to be of the space.
    """

    backend: Annotated[str, MinLen(1)] = field(
        kw_only=True, metadata={"about": "`http`, `bedrock`, `sagemaker`, or one of an extension that asks a service"}
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Bedrock's batch inference, for shards of many texts. The section [model.remote.batch].

    A job reads its texts from the bucket and writes their vectors there; the files are removed once the vectors are
    stored. Each actor waits for one job, so there are ``model.actors`` of them at once.
    """

    __pydantic_config__: ClassVar[Any] = _CONFIGURED

    uri: Annotated[str, MinLen(1)] = field(
        metadata={"about": "`s3://bucket/prefix`, where texts and vectors of a job lie until these are stored"}
    )
    role_arn: Annotated[str, MinLen(1)] = field(metadata={"about": "role by which Bedrock reads and writes there"})
    _: KW_ONLY
    min_texts: Annotated[int, Ge(100)] = field(
        default=1_000,
        metadata={"about": "of a shard; fewer go online. Bedrock takes no job of fewer than 100", "unit": "texts"},
    )
    shard_tokens: Annotated[int, Gt(0)] = field(
        default=4_194_304,
        metadata={"about": "of a job, in place of `model.shard_tokens`; at most 16,384 texts", "unit": "tokens"},
    )
    poll_seconds: Annotated[float, Gt(0), Le(3600)] = field(
        default=60.0, metadata={"about": "between two looks at a job", "unit": "seconds"}
    )
    max_hours: Annotated[int, Ge(24), Le(168)] = field(
        default=24, metadata={"about": "after which Bedrock ends a job; what it lacks goes online", "unit": "hours"}
    )
    usd_per_million_tokens: Annotated[float, Ge(0)] | None = field(
        default=None, metadata={"about": "price; none is half of `model.remote.usd_per_million_tokens`", "unit": "USD"}
    )


@dataclass(frozen=True, slots=True)
class RemoteSettings(Endpoint):
    """A managed model: where it is, what it takes in one request, and what it costs. The section [model.remote].

    ``max_tokens`` is the longest chunk, counted with the tokenizer of ``model.name``; ``dim`` the width of a vector.
    """

    dim: Annotated[int, Gt(0)] = field(metadata={"about": "width of a vector", "unit": "numbers"})
    max_tokens: Annotated[int, Gt(0)] = field(
        default=256, metadata={"about": "longest chunk, counted with the tokenizer of `model.name`", "unit": "tokens"}
    )
    normalise: bool = field(default=True, metadata={"about": "bring vectors to length 1"})
    attempts: Annotated[int, Gt(0)] = field(
        default=8,
        metadata={"about": "of one request, before its texts go to quarantine or the run fails", "unit": "attempts"},
    )
    max_usd: Annotated[float, Gt(0)] | None = field(
        default=None,
        metadata={
            "about": "what a run may spend on encoding; shards that are under way when it is reached are finished",
            "unit": "USD",
        },
    )
    open_after: Annotated[int, Gt(0)] = field(
        default=5,
        metadata={"about": "in a row, or half of 20: the endpoint is left out for a while", "unit": "failures"},
    )
    open_seconds: Annotated[float, Gt(0), Le(3600)] = field(
        default=30.0, metadata={"about": "for which it is left out before one request tries it", "unit": "seconds"}
    )
    hedge: Annotated[float, Ge(0), Le(1)] = field(
        default=0.0,
        metadata={
            "about": "share of requests that may be sent to the next endpoint too, where the answer takes longer than "
            "95 % of the last 100 did; both are paid"
        },
    )
    fallbacks: tuple[Fallback, ...] = field(default=(), metadata={"about": "further endpoints of the same space"})
    batch: Batch | None = field(default=None, metadata={"about": "Bedrock's batch inference"})

    def of(self, endpoint: Endpoint) -> RemoteSettings:
        """What a service of an endpoint is opened by: these settings, asked there."""
        return replace(self, fallbacks=(), **{one.name: getattr(endpoint, one.name) for one in fields(Endpoint)})


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Backend and model of an encoder.

    ``threads`` is the CPU threads it may use, ``batch_tokens`` bounds rows x longest row (None leaves it to the
    backend), ``max_tokens`` is where the model cuts a text off, ``dim`` the width of its vectors. ``cache`` is a folder
    of this model alone, for its converted graphs and the gate's verdicts. ``precision`` is chosen by the gate where it
    is "". ``purpose`` matters to models that embed a query in another way than a document; ``prompts`` stand in place
    of the model's own. ``stored`` is where ``model`` is copied from, on a machine that has none yet. ``probes`` are the
    vectors by which endpoints of a managed model are proven to be of one space (float32), and ``owner`` tells the batch
    jobs of one state from those of another. ``seconds`` is how long a managed model is asked for the texts of one call;
    None: for as long as all attempts take.
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
    probes: bytes = b""
    owner: str = ""
    seconds: float | None = None

    @property
    def told(self) -> tuple[str, int]:
        """The model's name and dimension, as others are told them."""
        return self.remote.model if self.remote else self.model.name, self.dim

    def fetch(self) -> None:
        """Copy the model to this machine, if it has none yet. Raises ResourceError."""
        if self.stored is not None:
            self.stored.fetch()
