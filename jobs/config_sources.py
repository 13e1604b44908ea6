"""The sections of the sources, ``[[sources]]``: keys, defaults, limits, and what each means."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from embedding.records import Visibility
from jobs.config_fields import OBJECTS, ReadStorage, Section, about, check_scheme

TEAM_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")

SourceId = Annotated[
    Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None,
    about("the source's own name; none knows it by kind, team and uri, so that under another uri it is another source"),
]
TimeUnit = Literal["s", "ms", "us", "ns", "date"]
TeamId = Annotated[str, about("the team of every document; 1 to 64 letters, digits, `_`, `.` or `-`")]


class Columns(Section):
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


class SourceSection(Section):
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


class StoredSource(LinkedSource):
    """A source of files, which may lie in an object store."""

    storage: Annotated[ReadStorage, about("how a source at `s3://` is reached")] = ReadStorage()

    @field_validator("uri")
    @classmethod
    def _place(cls, uri: str) -> str:
        check_scheme(uri, "a path")
        if "://" not in uri:
            return uri
        if not OBJECTS.fullmatch(uri):
            raise ValueError("give a path, or s3://bucket/prefix, without credentials")
        return uri.rstrip("/")


class SlackExportSource(StoredSource):
    """A Slack workspace export: a folder or a .zip."""

    global_ids = True
    link_fields = ("team_id", "channel_id", "ts")

    kind: Annotated[Literal["slack_export"], about('`"slack_export"`')]
    uri: Annotated[str, about("folder or .zip, or either at `s3://`")]
    team_id: TeamId


class FilesSource(StoredSource):
    """Every readable file below a folder, by content type."""

    needs_folder = True
    link_fields = ("team_id", "channel_id", "path")

    kind: Annotated[Literal["files"], about('`"files"`')]
    uri: Annotated[str, about("folder, or `s3://bucket/prefix`")]
    team_id: TeamId
    channel_id: Annotated[str, about("the channel of every file")] = ""
    visibility: Annotated[
        Visibility, about("of every file: what a search for all that is public, and some channels, finds")
    ] = "private"
    max_bytes: Annotated[int, about("larger files go to quarantine", "bytes", gt=0)] = 100_000_000


class TableSource(StoredSource):
    """Rows of Parquet, newline-delimited JSON or Delta, columns mapped by name."""

    link_fields = ("team_id", "channel_id", "id")

    kind: Annotated[Literal["table"], about('`"table"`')]
    uri: Annotated[str, about("folder or file, or either at `s3://`")]
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
