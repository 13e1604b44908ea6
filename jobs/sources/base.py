"""What a source is. A new one is one file that implements ``Source`` and one line that registers it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from embedding.buckets import Prefix
from embedding.errors import SourceError
from embedding.records import Kind, Record, Rejected

Root: TypeAlias = Path | Prefix  # of a source: a folder or a file, or a prefix of an object store


@dataclass(frozen=True, slots=True)
class Partition:
    """The unit that is read whole or not at all: a day file, a file, a table's data file.

    ``key`` names it in the state and survives a move of its file; ``path`` is where it is now. ``first`` and ``past``
    bound the creation time (µs) of what it can hold, where that is known without reading it.
    """

    key: str
    path: str
    fingerprint: str
    size: int
    channel_id: str | None = None
    first: int | None = None
    past: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Every partition of a source, and what could not even be listed.

    ``complete`` is false where part of the root could not be looked at: then nothing may be concluded from a
    partition's absence. ``moves``: a document may be in another partition from one listing to the next, as when a
    table's files are rewritten: while one of them cannot be read whole, those that went are not taken for deletions.
    """

    partitions: tuple[Partition, ...]
    rejected: tuple[Rejected, ...] = ()
    complete: bool = True
    moves: bool = False


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What reading one partition may take: processor time, memory of the process, characters of text."""

    seconds: float
    memory_mb: int
    text_chars: int

    def __str__(self) -> str:
        """For ``Source.reader``: what was in quarantine for a limit is read again where it changes."""
        return f"{self.seconds:g}:{self.memory_mb}:{self.text_chars}"


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source is opened with beside its own section of the configuration.

    ``root`` is the section's uri: a path, taken from the configuration's folder, or what ``s3://`` names. ``qualifier``
    goes into the ids of its documents; "" for most.
    """

    root: Root
    source_id: str
    qualifier: str
    limits: ReadLimits


class Source(Protocol):
    """A place documents come from. Instances are sent to the executors, so they must pickle and stay small."""

    source_id: str
    team_id: str | None  # None where rows bring their own
    kind: Kind
    reader: str  # version of everything that decides how a partition is read

    @property
    def names(self) -> Mapping[str, str]:
        """Display names by user or channel id, as far as ``listing`` found them."""
        ...

    def listing(self) -> Listing:
        """Look at the root without opening a partition. Raises SourceError for a missing or empty root."""
        ...

    def read(self, partition: Partition) -> Iterator[Record]:
        """Read one partition. Bad records come out as Rejected; nothing is raised for them."""
        ...

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        """Limits of the isolated reader for this partition; None to read it in the executor itself."""
        ...


@dataclass(frozen=True, slots=True)
class NameMap:
    """Display names by id. A missing name is part of the state too: it may appear later."""

    names: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self, refs: Iterable[str]) -> str:
        """Hash of the names of ``refs`` as they are now."""
        digest = hashlib.blake2b(digest_size=12)
        for ref in sorted(refs):
            digest.update(repr((ref, self.names.get(ref))).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def stat_fingerprint(status: os.stat_result) -> str:
    """Fingerprint of a local file without opening it. The change time catches edits that keep size and mtime."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def read_failure(error: OSError) -> Rejected:
    """A partition that the operating system would not let us read; another run may."""
    reason = "permission_denied" if isinstance(error, PermissionError) else "io_error"
    return Rejected(key="", reason=reason, detail=error.strerror or type(error).__name__, retry=True, whole=True)


def unreachable(kind: str, root: Prefix, error: OSError) -> SourceError:
    """What to raise where a prefix of an object store cannot be looked at."""
    advice = "look at the credentials in the environment and at the source's storage section"
    return SourceError(f"{kind} source: {root}: {error.strerror}; {advice}")


def source_key(kind: str, team_id: str | None, uri: str, name: str | None = None) -> str:
    """Stable id of a configured source, of its own ``name`` (its ``id``) where it has one, else of its address.

    Hashed, because an address may carry a customer's name.
    """
    known_by = uri if name is None else f"\0{name}"
    digest = hashlib.blake2b(f"{team_id}\0{known_by}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{kind}-{digest}"


def inside(root: Path, path: Path) -> bool:
    """Whether ``path``, links followed, lies below ``root``."""
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise RuntimeError for a loop of links
        return False
