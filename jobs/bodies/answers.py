"""The bodies of the commands that answer with no run report, and of errors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.bodies.base import Absent, Body, ScopeBody


class HeldBackBody(Body):
    """``documents`` of a partition that may be gone, and stay until what hides them can be read."""

    source_id: str
    partition: str
    reason: str
    since: str
    documents: int


class VerifyBody(Body):
    """`verify`: ``differences`` are rows by kind, ``examples`` some of their chunk ids."""

    run_id: str
    index: str
    space_id: str
    scope: ScopeBody
    status: Literal["ok", "repaired", "differs"]
    checked: int
    sampled_vectors: int
    sampled_source_partitions: int
    differences: dict[str, int]
    examples: tuple[str, ...]
    repaired: int
    index_rows: int
    source_partitions_changed: int
    source_partitions_marked: int
    held_back: tuple[HeldBackBody, ...]
    rebuilt: tuple[str, ...]


class HitBody(Body):
    """One chunk; a higher ``score`` is nearer.

    ``permalink`` is its address by the source's setting, of a file without one its path; "" where there is none.
    ``mentions`` are ids of people whom it names, ``has_file`` says that a file came with it.
    ``language`` is that of its text (ISO 639-1), "" where it is unsure.
    """

    chunk_id: str
    score: float
    team_id: str
    channel_id: str
    kind: str
    doc_id: str
    text: str
    created_at: str
    author: str = ""
    channel_name: str = ""
    thread_id: str = ""
    title: str = ""
    visibility: str = ""
    permalink: str = ""
    mentions: tuple[str, ...] = ()
    has_file: bool = False
    language: str = ""


class SearchBody(Body):
    """`search`: hits, best first. ``reranked`` is there where a reranker is configured, ``rerank_reason`` if it failed.

    A hit's ``score`` is the index's own, of a hybrid search from 0 to 1, also of a reranked answer. ``words`` is false
    of an index that has no BM25: a hybrid search of it goes by vectors alone.
    """

    space_id: str
    index: str
    hits: tuple[HitBody, ...]
    mode: Literal["dense", "lexical", "hybrid"]
    words: bool = True
    reranked: Absent[bool] = None
    rerank_reason: Absent[str] = None


class Version(Body):
    """One version of the index. ``owner`` is the state that writes it, "" where there is none."""

    name: str
    rows: int
    space_id: str
    owner: str


class IndexState(Body):
    """Where the alias points; ``live`` is null before the first run."""

    alias: str
    live: str | None
    versions: tuple[Version, ...]


class LastRun(Body):
    """One of the newest runs; also "killed" is a status here."""

    run_id: str
    command: str
    status: str
    started_at: str


class QuarantinedBody(Body):
    """A file, a partition (``key`` is empty) or a record of one that could not be read, cut or encoded, and why."""

    source_id: str
    partition: str
    key: str
    reason: str
    detail: str
    first_seen: str


class Quarantine(Body):
    """Rows by reason; ``total`` is of ``reasons``, the ignored ones are counted separately. ``newest``: 20 at most."""

    total: int
    reasons: dict[str, int]
    ignored: dict[str, int]
    newest: tuple[QuarantinedBody, ...]


class LevelBody(Body):
    """A promise of ``[slo]``: its key, what it asks for, what is (null: unknown), whether it is met.

    ``missed_runs``: where it is missed, at the end of how many runs in a row, up to the newest, it was missed too.
    """

    name: str
    target: float
    value: float | None
    met: bool
    missed_runs: int


class StatusBody(Body):
    """`status`: ``tables`` are rows by table; ``lag_seconds`` since the last good run began, null before it."""

    space_id: str
    state_id: str
    tables: dict[str, int]
    index: IndexState
    last_runs: tuple[LastRun, ...]
    lag_seconds: float | None
    quarantine: Quarantine
    held_back: tuple[HeldBackBody, ...]
    levels: tuple[LevelBody, ...] = ()


class RollbackBody(Body):
    """`rollback`: ``configured``: the configuration names this space; ``removed`` rows went before the alias moved."""

    run_id: str
    index: str
    previous: str
    space_id: str
    model: str
    configured: bool
    removed: int
    rows: int


class Taken(Body):
    """One version and who owned it, "" for none."""

    name: str
    owner_before: str


class TakeoverBody(Body):
    """`takeover`: ``taken`` versions were not this state's; ``index`` is null where none is live."""

    run_id: str
    index: str | None
    state_id: str
    versions: tuple[Taken, ...]
    taken: int


class TableSize(Body):
    """Data files of a table's newest version, and their size; older files stay an hour longer."""

    files: int
    bytes: int


class GcBody(Body):
    """`gc`: versions kept and dropped, spaces whose vectors were dropped, versions compacted; ``tables`` by name.

    ``dropped_models`` had seen what was purged since. ``models_unasked`` says why the registry was not looked through.
    """

    run_id: str
    live: str | None
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    dropped_spaces: tuple[str, ...]
    dropped_models: tuple[str, ...]
    compacted: tuple[str, ...]
    dry_run: bool
    tables: dict[str, TableSize]
    models_unasked: Absent[str] = None


class MigrateBody(Body):
    """`state migrate`: rows by table that were rewritten; none of a state that has the format of today."""

    format: int
    tables: dict[str, int]


class ReportBody(Body):
    """`report`: the run, the page that was written, and the command that the run was of."""

    run_id: str
    file: str
    command: str


class StateCopyBody(Body):
    """`state copy`: where from and to, the files of the state, how many of them were copied now, and its bytes.

    ``index_inside``: the index is a file in the former place, which therefore must stay.
    """

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    files: int
    copied: int
    bytes: int
    index_inside: bool


Origin = Literal["environment", "file", "default"]


class Setting(Body):
    """One setting in force, secrets masked."""

    key: str
    value: str | int | float | bool | dict[str, str] | tuple[()] | None
    origin: Origin = Field(serialization_alias="from")


class ConfigBody(Body):
    """`config`: every setting, and the file."""

    file: str
    settings: tuple[Setting, ...]


class PackageBody(Body):
    """`vespa-package`: dimensions by version, unused types that change, and whether Vespa answered."""

    package: str
    versions: dict[str, int]
    changed: tuple[str, ...]
    answered: bool


class ErrorDetail(Body):
    """Class of the error, exit code, and the line that a person reads."""

    kind: str
    exit_code: int
    message: str


class ErrorBody(Body):
    """Any command that failed."""

    error: ErrorDetail
