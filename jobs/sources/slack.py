"""The ``slack_export`` source: a Slack workspace export, as a folder or a .zip; a day file is a partition."""

from __future__ import annotations

import datetime as dt
import functools
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from embedding import ids
from embedding.errors import RejectedRecord, SourceError
from embedding.records import Kind, Record, Rejected
from embedding.slack_text import NORMALISER_VERSION
from jobs.sources.base import Listing, Partition, ReadLimits, inside, read_failure, source_key, stat_fingerprint
from jobs.sources.slack_export import Channel, parse_channels, parse_users, read_day

_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})\.json")
_CHANNEL_FILES = ("channels.json", "groups.json", "mpims.json", "dms.json")
_DAY_US = 86_400_000_000
# What zipfile raises for an entry, or a whole archive, that is damaged, encrypted or of an unknown method.
_DAMAGED = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError,
    KeyError, ValueError,
)  # fmt: skip
_MAX_DAY = 1 << 30  # a day file that is, or unpacks to, more is a bomb or a mistake
_MAX_NAMES = 1 << 28  # of the files that name users and channels, which the driver reads
_SMALL_DAY = 1_000_000  # bytes of JSON that become 100 MB of objects at the worst


class SlackExport:
    """Reads an export. Day files are keyed by channel id and day, so that a renamed channel's folder stays itself."""

    kind: Kind = "message"

    def __init__(self, root: Path, *, uri: str, team_id: str, limits: ReadLimits) -> None:
        self.root = root.resolve()
        self.source_id = source_key("slack_export", team_id, uri)
        self.team_id: str | None = team_id
        self.limits = limits
        self.reader = f"slack_export:{NORMALISER_VERSION}:{limits}"
        self._names: dict[str, str] = {}
        self._channels: dict[str, Channel] = {}

    @property
    def names(self) -> Mapping[str, str]:
        """Display names that ``listing`` found."""
        return self._names

    def listing(self) -> Listing:
        """See Source.listing. Reads the small files that name users and channels."""
        if not self.root.exists():
            raise SourceError(f"slack_export source: no such export: {self.root}")
        folder = self.root.is_dir()
        if not folder:
            try:
                _open_zip(str(self.root), self.root.stat().st_mtime_ns)
            except (*_DAMAGED, OSError) as error:
                broken = "damaged or cut off" if not isinstance(error, OSError) else error.strerror or "unreadable"
                return Listing((), (Rejected("", "unreadable_zip", broken, retry=True, whole=True),), complete=False)
        rejected = self._load_names()
        if rejected:  # without channels every message would have another id, without users another text
            return Listing((), tuple(rejected), complete=False)
        entries, refused, complete = self._list_folder() if folder else self._list_zip()
        rejected += refused
        partitions: dict[str, Partition] = {}
        for path, fingerprint, size in entries:
            pure = PurePosixPath(path)
            day = _DAY.fullmatch(pure.name)
            if day is None or len(pure.parts) != 2:
                continue
            try:
                start = dt.datetime(*map(int, day.groups()), tzinfo=dt.UTC)  # type: ignore[arg-type,misc]
            except ValueError:
                rejected.append(Rejected(_quoted(path), "bad_day", "the file's name is not a day"))
                continue
            channel = self._channel(pure.parts[0])
            first = int(start.timestamp()) * 1_000_000
            key = self._key(path)
            if key in partitions:
                rejected.append(Rejected(_quoted(path), "duplicate_day", "two folders hold this channel's day"))
                complete = False
                continue
            # Slack cuts days in the workspace's time zone, so a file may hold half a day more on either side.
            partitions[key] = Partition(key, path, fingerprint, size, channel.id, first - _DAY_US, first + 2 * _DAY_US)
        if not partitions and not rejected:
            raise SourceError(f"slack_export source: no day file in {self.root}; an empty export is never a deletion")
        return Listing(tuple(sorted(partitions.values(), key=lambda p: p.key)), tuple(rejected), complete)

    def _list_folder(self) -> tuple[list[tuple[str, str, int]], list[Rejected], bool]:
        entries: list[tuple[str, str, int]] = []
        rejected: list[Rejected] = []
        complete = True
        try:
            folders = sorted(os.scandir(self.root), key=lambda e: e.name)
        except OSError as error:
            raise SourceError(f"slack_export source: {self.root}: {error.strerror}") from None
        for folder in folders:
            if folder.is_symlink() and not inside(self.root, Path(folder.path)):
                if not os.path.isfile(folder.path):
                    rejected.append(self._refused(folder.name, "link_outside_root", "the link leaves the export"))
                continue
            if not folder.is_dir():
                continue
            try:
                found = self._list_days(Path(folder.path), rejected)
            except OSError as error:
                rejected.append(self._refused(folder.name, "unreadable_folder", error.strerror or "", retry=True))
                complete = False
            else:
                entries += found
        return entries, rejected, complete

    def _list_days(self, folder: Path, rejected: list[Rejected]) -> list[tuple[str, str, int]]:
        entries = []
        for file in sorted(os.scandir(folder), key=lambda e: e.name):
            name = f"{folder.name}/{file.name}"
            if file.is_symlink() and not inside(self.root, Path(file.path)):
                rejected.append(self._refused(name, "link_outside_root", "the link leaves the export"))
            elif file.is_file():
                status = file.stat()
                entries.append((name, stat_fingerprint(status), status.st_size))
        return entries

    def _refused(self, path: str, reason: str, detail: str, *, retry: bool = False) -> Rejected:
        """A folder or a file that was not looked at, under the key of its partitions, so that they count as there."""
        return Rejected(self._key(path), reason, detail, retry=retry)

    def _key(self, path: str) -> str:
        """Key of a day file's partition; of a folder, what the keys of its days begin with."""
        folder, _, name = path.partition("/")
        channel = quote(self._channel(folder).id, "")
        return f"{channel}/{_quoted(name.removesuffix('.json'))}" if name else channel

    def _list_zip(self) -> tuple[list[tuple[str, str, int]], list[Rejected], bool]:
        entries: list[tuple[str, str, int]] = []
        rejected: list[Rejected] = []
        for info in _open_zip(str(self.root), self.root.stat().st_mtime_ns).infolist():
            pure = PurePosixPath(info.filename)
            if pure.is_absolute() or ".." in pure.parts or "\\" in info.filename:
                rejected.append(Rejected(_quoted(info.filename), "unsafe_path", "a zip entry that leaves its folder"))
            elif not info.is_dir():
                entries.append((info.filename, f"{info.CRC:08x}:{info.file_size}", info.file_size))
        return entries, rejected, True

    def _bytes(self, path: str, most: int = _MAX_DAY) -> bytes:
        if self.root.is_dir():
            size = (self.root / path).stat().st_size
        else:
            archive = _open_zip(str(self.root), self.root.stat().st_mtime_ns)
            size = archive.getinfo(path).file_size  # zipfile reads no more than this
        if size > most:
            raise RejectedRecord("too_large", f"more than {most >> 20} MiB")
        return (self.root / path).read_bytes() if self.root.is_dir() else archive.read(path)

    def _load_names(self) -> list[Rejected]:
        """Read what names users and channels; returns what is there and cannot be read."""
        rejected = []
        for name in ("users.json", *_CHANNEL_FILES):
            try:
                data = self._bytes(name, _MAX_NAMES)
                if name == "users.json":
                    self._names.update(parse_users(data))
                else:
                    self._channels.update(parse_channels(data, private=name != "channels.json"))
            except (FileNotFoundError, KeyError):
                continue  # exports differ in which of these they have
            except RejectedRecord as error:
                rejected.append(Rejected(name, error.reason, error.detail, retry=True))
            except (*_DAMAGED, OSError) as error:
                rejected.append(Rejected(name, "io_error", type(error).__name__, retry=True))
        self._names.update({channel.id: channel.name for channel in self._channels.values()})
        return rejected

    def _channel(self, folder: str) -> Channel:
        shown = folder.encode("utf-8", "replace").decode()  # a folder's name need not be UTF-8
        return self._channels.get(folder) or Channel(id=shown, name=shown, private=False)

    def read(self, partition: Partition) -> Iterator[Record]:
        """See Source.read."""
        assert self.team_id is not None
        channel = self._channel(PurePosixPath(partition.path).parts[0])
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
        for record in read_day(data, team_id=self.team_id, channel=channel, names=self.names):
            if isinstance(record, Rejected) and record.key and not record.key.startswith("@"):
                record = replace(record, doc_id=ids.message_id(self.team_id, channel.id, record.key))
            yield record

    def apart(self, partition: Partition) -> ReadLimits | None:
        """See Source.apart."""
        return self.limits if partition.size > _SMALL_DAY else None


def _quoted(path: str) -> str:
    return quote(path.encode("utf-8", "replace"))


@functools.lru_cache(maxsize=4)
def _open_zip(path: str, modified: int) -> zipfile.ZipFile:
    """One open archive a process: its directory is read once, not for every entry."""
    return zipfile.ZipFile(path)
