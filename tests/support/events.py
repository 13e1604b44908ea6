"""A source that yields what a test tells it to, and what extract makes of it: no files, one engine for all.

Every story has a team and two sources of its own, ``a`` and the later ``b``. What a partition holds is a list of
records, made by ``text``, ``gone`` and the like; a story goes on by giving its partitions anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedding.records import Document, Kind, Record, Rejected, Removed
from jobs.extract.changes import Extraction
from jobs.extract.extract import ExtractReport, extract
from jobs.extract.held_deletions import HeldBack, held_back
from jobs.pipeline import Pipeline
from jobs.scope import Scope
from jobs.sources.base import Listing, Partition, ReadLimits, Source
from tests.support.in_process import Death, open_pipeline
from tests.support.workspace import Workspace, writing


@dataclass(frozen=True)
class Said:
    """One record of a story: its document's short name, and what happened to it at which version."""

    what: str
    doc: str = ""
    version: int = 0
    text: str = ""
    reason: str = ""

    def __repr__(self) -> str:
        return " ".join(str(part) for part in (self.what, self.doc, self.version or "", self.text) if part)


def text(doc: str, version: int, words: str) -> Said:
    return Said("text", doc, version, words)


def gone(doc: str, version: int) -> Said:
    """A deletion."""
    return Said("gone", doc, version)


def emptied(doc: str, version: int) -> Said:
    """An edit that left no text."""
    return Said("emptied", doc, version)


def unreadable(doc: str, reason: str = "bad_created_at") -> Said:
    """A record that says which document it is, and no more."""
    return Said("unreadable", doc, reason=reason)


def nameless(content: str, reason: str = "missing_id") -> Said:
    """A record that may be any document; by its ``content`` it can be told from others."""
    return Said("nameless", text=content, reason=reason)


def torn(reason: str = "cut_off") -> Said:
    """Here the partition ends; what came after is not known."""
    return Said("torn", reason=reason)


def picture() -> Said:
    """A record of a kind for which there is no use."""
    return Said("picture", reason="unsupported_type")


Partitions = Mapping[str, Sequence[Said]]  # by "a/NAME" or "b/NAME"


@dataclass
class Told:
    """A source. ``refused`` are keys that its listing could not look at; ``complete`` is what the listing says."""

    source_id: str
    team_id: str | None
    partitions: dict[str, Sequence[Said]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    complete: bool = True
    kind: Kind = "message"
    reader: str = "told:1"

    @property
    def names(self) -> Mapping[str, str]:
        return {}

    def listing(self) -> Listing:
        found = [
            Partition(key, key, hashlib.blake2b(repr(said).encode(), digest_size=8).hexdigest(), len(said), "C1")
            for key, said in sorted(self.partitions.items())
        ]
        refused = tuple(Rejected(key, "unreadable_folder", retry=True) for key in self.refused)
        return Listing(tuple(found), refused, self.complete)

    def read(self, partition: Partition) -> Iterator[Record]:
        for place, said in enumerate(self.partitions[partition.key]):
            yield self._record(place, said)
            if said.what == "torn":
                return

    def _record(self, place: int, said: Said) -> Record:
        team = self.team_id or ""
        doc_id = f"{team}/m/C1/{said.doc}"
        match said.what:
            case "text":
                return Document(doc_id, team, "C1", "general", "message", 1, said.version, said.version, said.text)
            case "gone":
                return Removed(doc_id, team, "C1", "message", 1, said.version, "deleted")
            case "emptied":
                return Removed(doc_id, team, "C1", "message", 1, said.version, "empty_text", deleted=False)
            case "unreadable":
                return Rejected(said.doc, said.reason, channel_id="C1", doc_id=doc_id)
            case "nameless":
                digest = hashlib.blake2b(said.text.encode(), digest_size=8).hexdigest()
                return Rejected(f"@{place}", said.reason, channel_id="C1", digest=digest)
            case "picture":
                return Rejected("", said.reason, channel_id="C1", whole=True, ignored=True)
            case _:
                return Rejected("", said.reason, channel_id="C1", whole=True)

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        return None


class Stories:
    """All stories of a test over one state. ``tell`` sets what a story's partitions are, ``read`` is a run's extract."""

    def __init__(self, root: Path) -> None:
        self.config = Workspace(root, files=False).config
        self.sources: dict[str, dict[str, Told]] = {}
        self.runs = 0
        self.pipeline = open_pipeline(self.config)

    def tell(self, story: str, partitions: Partitions) -> None:
        """A story's partitions as they are now, and no others."""
        ours = self.sources.setdefault(story, {s: Told(f"{story}-{s}", story) for s in "ab"})
        for name, source in ours.items():
            source.partitions = {
                key.partition("/")[2]: said for key, said in partitions.items() if key.startswith(f"{name}/")
            } | {"0": []}  # a source with nothing in it is a fault

    def read(self, scope: Scope | None = None, death: Death | None = None) -> ExtractReport:
        """Bring the text tables up to date; ``death`` says at which of its commits the process dies."""
        self.runs += 1
        self.pipeline = pipeline = self._reopened(death)
        listed: list[Source] = [source for ours in self.sources.values() for source in ours.values()]
        state, chunking = writing(pipeline.state), pipeline.chunking()
        return extract(
            pipeline.frames,
            Extraction(state, listed, chunking, scope or Scope(), f"run-{self.runs}", self.runs * 1_000_000),
        )

    def _reopened(self, death: Death | None) -> Pipeline:
        pipeline = open_pipeline(self.config, death)
        pipeline._frames = self.pipeline._frames
        return pipeline

    def shown(self) -> dict[str, dict[str, str]]:
        """By story the text of each document."""
        found: dict[str, dict[str, str]] = {story: {} for story in self.sources}
        for row in self.pipeline.state.read("chunks", ["team_id", "doc_id", "text"]).to_pylist():
            found[row["team_id"]][row["doc_id"].rpartition("/")[2]] = row["text"]
        return found

    def held(self) -> dict[str, list[HeldBack]]:
        """By story what is held back."""
        found: dict[str, list[HeldBack]] = {story: [] for story in self.sources}
        for one in held_back(self.pipeline.state):
            found[one.source_id.rpartition("-")[0]].append(one)
        return found

    def quarantine(self) -> dict[str, list[tuple[str, str, bool]]]:
        """By story the partition, reason and class of what could not be read."""
        found: dict[str, list[tuple[str, str, bool]]] = {story: [] for story in self.sources}
        for row in self.pipeline.state.read("quarantine").to_pylist():
            found[row["source_id"].rpartition("-")[0]].append((row["partition"], row["reason"], row["ignored"]))
        return found
