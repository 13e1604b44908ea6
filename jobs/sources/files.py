"""The ``files`` source: every file below a folder is a partition of one document."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from embedding import ids
from embedding.errors import RejectedRecord, SourceError
from embedding.records import Document, Kind, Record, Rejected, Skipped, Visibility
from jobs.sources.base import Listing, Partition, ReadLimits, SourceContext, inside, read_failure, stat_fingerprint

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
        self.root = context.root.resolve()
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
        if not self.root.is_dir():
            raise SourceError(f"files source: no such folder: {self.root}")
        partitions: list[Partition] = []
        rejected: list[Rejected] = []
        unreadable: list[OSError] = []
        for folder, _, names in os.walk(self.root, onerror=unreadable.append):
            for name in sorted(names):
                self._look(Path(folder) / name, partitions, rejected)
            # os.path: a DirEntry raises for a link that ends in a loop or may not be followed
            links = [d for d in os.scandir(folder) if d.is_symlink() and os.path.isdir(d.path)]
            rejected += [
                self._reject(Path(d.path), "link_to_folder", "links to folders are not followed") for d in links
            ]
        if unreadable and not partitions:
            raise SourceError(f"files source: {self.root}: {unreadable[0].strerror}")
        for error in unreadable:
            rejected.append(self._reject(Path(os.fsdecode(error.filename)), "unreadable_folder", error.strerror or ""))
        if not partitions and not rejected:
            raise SourceError(f"files source: {self.root} is empty; an empty root is never taken for a deletion")
        partitions.sort(key=lambda p: p.key)
        return Listing(tuple(partitions), tuple(rejected), complete=not unreadable)

    def _look(self, path: Path, partitions: list[Partition], rejected: list[Rejected]) -> None:
        if os.path.islink(path) and not inside(self.root, path):
            rejected.append(self._reject(path, "link_outside_root", "the link leaves the source's folder or is broken"))
            return
        try:
            status = path.stat()
        except OSError as error:
            rejected.append(self._reject(path, "io_error", error.strerror or ""))
            return
        if not path.is_file():
            rejected.append(self._reject(path, "not_a_file", "a socket, pipe or device"))
            return
        created = int(status.st_mtime_ns // 1000)
        key = self._key(path)
        partitions.append(
            Partition(key, str(path), stat_fingerprint(status), status.st_size, self.channel_id, created, created + 1)
        )

    def _key(self, path: Path) -> str:
        relative = os.fsencode(path.relative_to(self.root))
        return ids.file_id("", os.fsdecode(relative)).removeprefix("/f/")

    def _reject(self, path: Path, reason: str, detail: str) -> Rejected:
        return Rejected(self._key(path), reason, detail, channel_id=self.channel_id, retry=True)

    def read(self, partition: Partition) -> Iterator[Record]:
        """See Source.read."""
        from embedding.parsers import Limits, parse_file

        assert self.team_id is not None
        path = Path(partition.path)
        try:
            with path.open("rb") as file:
                data = file.read(self.max_bytes + 1) if partition.size <= self.max_bytes else b""
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
        relative = os.fsdecode(os.fsencode(path.relative_to(self.root)))
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

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        """See Source.isolation_limits."""
        return self.limits

    def _failed(self, partition: Partition, reason: str, detail: str, *, retry: bool = False) -> Rejected:
        """A file that should have text and cannot be read: what is published of it stays."""
        return Rejected(
            "", reason, detail, channel_id=self.channel_id, created_at=partition.first, retry=retry, whole=True
        )
