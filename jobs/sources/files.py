"""The ``files`` source: every file below a folder, or a prefix of an object store, is a partition of one document."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from embedding import ids
from embedding.buckets import Prefix
from embedding.errors import RejectedRecord, SourceError
from embedding.records import Document, Kind, Record, Rejected, Skipped, Visibility
from jobs.sources.base import (
    Listing,
    Partition,
    ReadLimits,
    SourceContext,
    inside,
    read_failure,
    stat_fingerprint,
    unreachable,
)

FILES_VERSION = "2"  # what this file makes of a parsed file; raised, everything is read again
_BLANK = b" \t\r\n\v\f"


class FilesSource:
    """Reads a folder. Links are followed only while they stay below it."""

    kind: Kind = "file"

    def __init__(
        self,
        context: SourceContext,
        *,
        team_id: str,
        channel_id: str,
        max_bytes: int,
        visibility: Visibility = "private",
    ) -> None:
        # Here and in ``read``: an executor that leaves reading to the isolated reader needs no parser.
        from embedding.parsers import parser_version

        limits, qualifier = context.limits, context.qualifier
        self.root = context.root if isinstance(context.root, Prefix) else context.root.resolve()
        self.source_id = context.source_id
        self.team_id: str | None = team_id
        self.channel_id = channel_id
        self.visibility = visibility
        self.max_bytes = max_bytes
        self.limits = limits
        self.qualifier = qualifier  # see ids.file_id
        self.reader = (
            f"files:{FILES_VERSION}:{parser_version()}:{channel_id}:{visibility}:{max_bytes}:{limits}:{qualifier}"
        )
        self.names: Mapping[str, str] = {}

    def listing(self) -> Listing:
        """See Source.listing. Raises SourceError for a missing or empty folder."""
        if isinstance(self.root, Prefix):
            return self._list_objects(self.root)
        return self._list_folder(self.root)

    def _list_objects(self, root: Prefix) -> Listing:
        try:
            found = list(root.listing())
        except OSError as error:
            raise unreachable("files", root, error) from None
        if not found:
            raise SourceError(f"files source: nothing is below {root}; an empty root is never taken for a deletion")
        partitions = [self._partition(one.path, one.path, one.fingerprint, one.size, one.modified) for one in found]
        return Listing(tuple(sorted(partitions, key=lambda p: p.key)))

    def _list_folder(self, root: Path) -> Listing:
        if not root.is_dir():
            raise SourceError(f"files source: no such folder: {root}")
        partitions: list[Partition] = []
        rejected: list[Rejected] = []
        unreadable: list[OSError] = []
        for folder, _, names in os.walk(root, onerror=unreadable.append):
            for name in sorted(names):
                found = self._look(root, Path(folder) / name)
                if isinstance(found, Rejected):
                    rejected.append(found)
                else:
                    partitions.append(found)
            # os.path: a DirEntry raises for a link that ends in a loop or may not be followed
            links = [Path(d.path) for d in os.scandir(folder) if d.is_symlink() and os.path.isdir(d.path)]
            rejected += [
                self._reject(root, path, "link_to_folder", "links to folders are not followed") for path in links
            ]
        if unreadable and not partitions:
            raise SourceError(f"files source: {root}: {unreadable[0].strerror}")
        for error in unreadable:
            folder_path = Path(os.fsdecode(error.filename))
            rejected.append(self._reject(root, folder_path, "unreadable_folder", error.strerror or ""))
        if not partitions and not rejected:
            raise SourceError(f"files source: {root} is empty; an empty root is never taken for a deletion")
        partitions.sort(key=lambda p: p.key)
        return Listing(tuple(partitions), tuple(rejected), complete=not unreadable)

    def _look(self, root: Path, path: Path) -> Partition | Rejected:
        if os.path.islink(path) and not inside(root, path):
            why = "the link leaves the source's folder or is broken"
            return self._reject(root, path, "link_outside_root", why)
        try:
            status = path.stat()
        except OSError as error:
            return self._reject(root, path, "io_error", error.strerror or "")
        if not path.is_file():
            return self._reject(root, path, "not_a_file", "a socket, pipe or device")
        relative = _relative(path, root)
        return self._partition(relative, str(path), stat_fingerprint(status), status.st_size, status.st_mtime_ns)

    def _partition(self, relative: str, path: str, fingerprint: str, size: int, modified: int) -> Partition:
        created = modified // 1000
        return Partition(_key(relative), path, fingerprint, size, self.channel_id, created, created + 1)

    def _reject(self, root: Path, path: Path, reason: str, detail: str) -> Rejected:
        return Rejected(_key(_relative(path, root)), reason, detail, channel_id=self.channel_id, retry=True)

    def read(self, partition: Partition) -> Iterator[Record]:
        """See Source.read."""
        from embedding.parsers import Limits, parse_file

        assert self.team_id is not None
        try:
            data = self._bytes(partition.path) if partition.size <= self.max_bytes else b""
        except OSError as error:
            yield read_failure(error)
            return
        if max(len(data), partition.size) > self.max_bytes:  # it may have grown since it was listed
            yield self._failed(partition, "too_large", f"more than {self.max_bytes} bytes (files source's max_bytes)")
            return
        if not data and partition.size:
            yield self._failed(partition, "changed_meanwhile", "emptied since it was listed", retry=True)
            return
        if not data.strip(_BLANK):
            yield Skipped("empty_text")
            return
        relative = partition.path
        if not isinstance(self.root, Prefix):
            relative = _relative(Path(partition.path), self.root)
        shown = relative.encode("utf-8", "replace").decode()
        try:
            parsed = parse_file(data, shown, Limits(text_characters=self.limits.text_chars))
        except RejectedRecord as error:
            if error.ignored:  # nothing is wrong with it, and nothing of its kind is searched
                yield Rejected(
                    "", error.reason, error.detail, channel_id=self.channel_id, created_at=partition.first, ignored=True
                )
            elif error.reason == "no_text":
                yield Skipped("empty_text")
            else:
                yield self._failed(partition, error.reason, error.detail)
            return
        modified = partition.first or 0
        meta: dict[str, object] = {"path": shown, "media_type": parsed.media_type, **parsed.meta}
        if parsed.title:
            meta["title"] = parsed.title
        yield Document(
            doc_id=ids.file_id(self.team_id, relative, self.qualifier),
            team_id=self.team_id,
            channel_id=self.channel_id,
            channel_name="",
            kind="file",
            created_at=modified,
            updated_at=modified,
            version=modified,
            text=parsed.text,
            meta=meta,
            marks=parsed.marks,
            title=parsed.title or PurePath(shown).stem,
            visibility=self.visibility,
        )

    def _bytes(self, path: str) -> bytes:
        """A file; of one that is too large one byte too many."""
        if isinstance(self.root, Prefix):
            return self.root.read(path, self.max_bytes + 1)
        with open(path, "rb") as file:
            return file.read(self.max_bytes + 1)

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        """See Source.isolation_limits."""
        return self.limits

    def _failed(self, partition: Partition, reason: str, detail: str, *, retry: bool = False) -> Rejected:
        """A file that should have text and cannot be read: what is published of it stays."""
        return Rejected(
            "", reason, detail, channel_id=self.channel_id, created_at=partition.first, retry=retry, whole=True
        )


def _relative(path: Path, root: Path) -> str:
    return os.fsdecode(os.fsencode(path.relative_to(root)))


def _key(relative: str) -> str:
    return ids.file_id("", relative).removeprefix("/f/")
