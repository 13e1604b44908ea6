"""The ``slack_export`` source: a Slack workspace export, as a folder or a .zip; a day file is a partition.

Either may lie in an object store: a .zip there is known by its name.
"""

from __future__ import annotations

import datetime as dt
import functools
import lzma
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from embedding.buckets import Prefix
from embedding.errors import RejectedRecord, SourceError
from embedding.records import Kind, Record, Rejected, Visibility
from embedding.text.slack import NORMALISER_VERSION
from jobs.sources.base import Listing, Partition, ReadLimits, Root, read_failure, unreachable
from jobs.sources.slack_export_parser import Channel, parse_channels, parse_users, read_day
from jobs.sources.slack_tree import (
    CHANNEL_FILES,
    DAY,
    USER_FILES,
    Entry,
    Parts,
    Tree,
    find_export,
    folder_tree,
    objects_tree,
    workspaces,
    zip_tree,
)

_DAY_US = 86_400_000_000
# What zipfile raises for an entry, or a whole archive, that is damaged, encrypted or of an unknown method.
_DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    KeyError,
    ValueError,
)
_MAX_DAY = 1 << 30  # a day file that is, or unpacks to, more is a bomb or a mistake
_MAX_NAMES = 1 << 28  # of the files that name users and channels, which the driver reads
_ID = re.compile(r"[CDG][A-Z0-9]{7,}")  # a folder that has its channel's id for a name
_CHARSETS = ("cp932", "cp949", "gb18030", "big5", "cp1251", "cp1252", "cp850")  # of names that Windows packed
_SMALL_DAY = 1_000_000  # bytes of JSON that become 100 MB of objects at the worst


class SlackExport:
    """Reads an export. Day files are keyed by channel id and day, so that a renamed channel's folder stays itself."""

    kind: Kind = "message"

    def __init__(self, root: Root, *, source_id: str, team_id: str, limits: ReadLimits) -> None:
        self.root = root if isinstance(root, Prefix) else root.resolve()
        self._etag = ""  # of an archive in an object store, as it was listed
        self.source_id = source_id
        self.team_id: str | None = team_id
        self.limits = limits
        self.reader = f"slack_export:{NORMALISER_VERSION}:{limits}"
        self._names: dict[str, str] = {}
        self._channels: dict[tuple[str, str], Channel] = {}  # by workspace and folder
        self._folders: dict[str, Channel] = {}  # by the folder that a day is read from

    @property
    def names(self) -> Mapping[str, str]:
        """Display names that ``listing`` found."""
        return self._names

    def listing(self) -> Listing:
        """See Source.listing. Reads the small files that name users and channels.

        Raises SourceError for a missing or empty export.
        """
        try:
            tree = self._tree()
        except (*_DAMAGED, OSError) as error:
            broken = "empty, damaged or cut off" if not isinstance(error, OSError) else error.strerror or "unreadable"
            broken = f"{self.root.name}: {broken}"
            return Listing((), (Rejected("", "unreadable_zip", broken, retry=True, whole=True),), complete=False)
        self._names, self._channels, self._folders = {}, {}, {}
        root = find_export([*tree.entries, *(r.parts for r in tree.refused if len(r.parts) > 1)])
        homes = workspaces(tree.entries, root)
        out_of_reach = [r for r in tree.refused if r.names]
        rejected = [Rejected(_quoted(r.path), r.reason, r.detail, retry=r.retry) for r in out_of_reach]
        if rejected := rejected + self._load_names(tree, homes):
            # without channels every message would have another id, without users another text
            return Listing((), tuple(rejected), complete=False)
        complete = tree.complete
        for refusal in tree.refused:
            workspace, rest = _place(refusal.parts, root, homes)
            known = bool(refusal.parts) and 1 <= len(rest) <= 2
            # Under the key of its partitions, so that they count as there.
            key = self._key(workspace, rest) if known else _quoted(refusal.path)
            rejected.append(Rejected(key, refusal.reason, refusal.detail, retry=refusal.retry))
            complete &= known or not refusal.parts
        partitions, faults = self._partitions(tree, root, homes)
        complete &= not any(fault.reason == "duplicate_day" for fault in faults)
        rejected += faults
        if not partitions and not rejected:
            raise SourceError(f"slack_export source: no day file in {self.root}; an empty export is never a deletion")
        ordered = tuple(sorted(partitions.values(), key=lambda p: p.key))
        return Listing(ordered, tuple(rejected), complete and bool(partitions))

    def _tree(self) -> Tree:
        """What the export holds. Raises SourceError where there is none, OSError for an archive that cannot be read."""
        if isinstance(self.root, Path):
            if not self.root.exists():
                raise SourceError(f"slack_export source: no such export: {self.root}")
            return folder_tree(self.root) if self.root.is_dir() else zip_tree(self._archive())
        if not _is_archive(self.root):
            return objects_tree(self.root)
        try:
            found = self.root.single()
        except OSError as error:
            raise unreachable("slack_export", self.root, error) from None
        if found is None:
            raise SourceError(f"slack_export source: no such export: {self.root}")
        self._etag = found.etag
        return zip_tree(self._archive())

    def _archive(self) -> zipfile.ZipFile:
        """The open archive. Raises OSError, and what zipfile raises for one that is damaged."""
        return _open_zip(self.root, self.root.stat().st_mtime_ns if isinstance(self.root, Path) else self._etag)

    def _partitions(
        self, tree: Tree, root: Parts, homes: Mapping[str, Parts]
    ) -> tuple[dict[str, Partition], list[Rejected]]:
        partitions: dict[str, Partition] = {}
        rejected: list[Rejected] = []
        held: dict[str, str] = {}  # the workspace that a partition was found in
        for workspace, rest, entry in sorted((*_place(p, root, homes), e) for p, e in tree.entries.items()):
            day = DAY.fullmatch(rest[-1])
            if day is None or len(rest) != 2:
                continue
            try:
                start = dt.datetime(*map(int, day.groups()), tzinfo=dt.UTC)  # type: ignore[arg-type,misc]
            except ValueError:
                rejected.append(Rejected(_quoted(entry.path), "bad_day", "the file's name is not a day"))
                continue
            channel = self._channel(workspace, rest[0])
            self._folders[_folder(entry.path)] = channel
            key = self._key(workspace, rest)
            if key in partitions and held[key] != workspace:
                key = f"{key}~{_quoted(workspace)}"  # a channel that workspaces share lies in the folder of each
            if key in partitions:
                rejected.append(Rejected(_quoted(entry.path), "duplicate_day", "two folders hold this channel's day"))
                continue
            held[key] = workspace
            first = int(start.timestamp()) * 1_000_000
            # Who may see a channel is with its messages: a day is read again when that changes.
            fingerprint = entry.fingerprint + f":{channel.visibility}" * (channel.visibility != "public")
            # Slack cuts days in the workspace's time zone, so a file may hold half a day more on either side.
            bounds = (first - _DAY_US, first + 2 * _DAY_US)
            partitions[key] = Partition(key, entry.path, fingerprint, entry.size, channel.id, *bounds)
        return partitions, rejected

    def _key(self, workspace: str, rest: Parts) -> str:
        """Key of a day file's partition; of a folder, what the keys of its days begin with."""
        channel = quote(self._channel(workspace, rest[0]).id, "")
        return "/".join((channel, *(_quoted(name.removesuffix(".json")) for name in rest[1:])))

    def _bytes(self, path: str, most: int = _MAX_DAY) -> bytes:
        too_large = RejectedRecord("too_large", f"more than {most >> 20} MiB")
        if isinstance(self.root, Prefix) and not _is_archive(self.root):
            if len(data := self.root.read(path, most + 1)) > most:
                raise too_large
            return data
        if isinstance(self.root, Path) and self.root.is_dir():
            if (self.root / path).stat().st_size > most:
                raise too_large
            return (self.root / path).read_bytes()
        archive = self._archive()
        if archive.getinfo(path).file_size > most:  # zipfile reads no more than this
            raise too_large
        return archive.read(path)

    def _load_names(self, tree: Tree, homes: Mapping[str, Parts]) -> list[Rejected]:
        """Read what names users and channels; returns what is there and cannot be read."""
        rejected = []
        for workspace, home in homes.items():
            for name in (*USER_FILES, *CHANNEL_FILES):
                entry = tree.entries.get((*home, name))
                if entry is None:  # exports differ in which of these they have
                    continue
                try:
                    self._read_names(entry, name, workspace)
                except RejectedRecord as error:
                    rejected.append(Rejected(_quoted(entry.path), error.reason, error.detail, retry=True))
                except (*_DAMAGED, OSError) as error:
                    rejected.append(Rejected(_quoted(entry.path), "io_error", type(error).__name__, retry=True))
        self._names.update({channel.id: channel.name for channel in self._channels.values()})
        return rejected

    def _read_names(self, entry: Entry, name: str, workspace: str) -> None:
        data = self._bytes(entry.path, _MAX_NAMES)
        if name in USER_FILES:  # the organisation's first, then the workspaces' in their order
            self._names = parse_users(data) | self._names
            return
        for folder, channel in parse_channels(data, private=name != "channels.json").items():
            shown = unicodedata.normalize("NFC", folder)
            self._channels[workspace, shown] = replace(channel, workspace=workspace)

    def _channel(self, workspace: str, folder: str) -> Channel:
        for name in (folder, *_readings(folder)):
            if channel := self._channels.get((workspace, name)):
                return channel
        shown = folder.encode("utf-8", "replace").decode()  # a folder's name need not be UTF-8
        if _ID.fullmatch(shown):  # ids are unique in an organisation, names in a workspace alone
            visibility: Visibility = "direct" if shown[0] == "D" else "private" if shown[0] == "G" else "public"
            return Channel(shown, shown, visibility, workspace)
        return Channel(f"{workspace}:{shown}" if workspace else shown, shown, workspace=workspace)

    def read(self, partition: Partition) -> Iterator[Record]:
        """See Source.read."""
        assert self.team_id is not None
        folder = _folder(partition.path)
        channel = self._folders.get(folder) or self._channel("", folder.rstrip("/\\"))
        try:
            data = self._bytes(partition.path)
        except RejectedRecord as error:
            yield Rejected("", error.reason, error.detail, channel.id, whole=True)
            return
        except _DAMAGED:
            yield Rejected(
                "", "unreadable_zip_entry", "damaged, encrypted or of an unknown method", channel.id, whole=True
            )
            return
        except OSError as error:
            yield read_failure(error)
            return
        yield from read_day(data, team_id=self.team_id, channel=channel, names=self.names)

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        """See Source.isolation_limits."""
        return self.limits if partition.size > _SMALL_DAY else None


def _quoted(path: str) -> str:
    return quote(path.encode("utf-8", "replace"))


def _folder(path: str) -> str:
    """The folder of a file, as it is read."""
    return path[: max(path.rfind("/"), path.rfind("\\")) + 1]


def _place(parts: Parts, root: Parts, homes: Mapping[str, Parts]) -> tuple[str, Parts]:
    """The workspace that a path lies in, and what is left of it there."""
    if parts[: len(root)] != root:
        return "", parts
    rest = parts[len(root) :]
    return (rest[1], rest[2:]) if len(rest) > 2 and rest[0] == "teams" and rest[1] in homes else ("", rest)


def _readings(folder: str) -> Iterator[str]:
    """What a name may have been that was packed in an old charset and read as code page 437."""
    if not folder.isascii():
        for charset in _CHARSETS:
            try:
                yield unicodedata.normalize("NFC", folder.encode("cp437").decode(charset))
            except UnicodeError:
                continue


def _is_archive(root: Prefix) -> bool:
    return root.key.lower().endswith(".zip")


@functools.lru_cache(maxsize=4)
def _open_zip(root: Root, version: int | str) -> zipfile.ZipFile:
    """One open archive a process: its directory is read once, not for every entry.

    ``version`` is the time of a file's last change, or an object's ETag.
    """
    file = root if isinstance(root, Path) else root.open("", str(version))
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        if isinstance(cause := error.__context__, OSError):  # it could not be read; zipfile takes that for damage
            raise cause from None
        raise
