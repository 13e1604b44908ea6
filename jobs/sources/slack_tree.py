"""The files of a Slack export, as a folder, a prefix of an object store or a .zip, and where in them the export is.

Names are told apart from where the bytes lie: an entry has the path that the export means (``/`` between its parts, in
NFC, without ``./``) and the one that it is read by. Opens no file.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from embedding.buckets import Prefix
from embedding.errors import SourceError
from jobs.sources.base import inside, stat_fingerprint, unreachable

USER_FILES = ("org_users.json", "users.json")
CHANNEL_FILES = ("channels.json", "groups.json", "mpims.json", "dms.json")
DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})\.json")
_NAME_FILES = frozenset((*USER_FILES, *CHANNEL_FILES))
_DEPTH = 7  # export / teams / workspace / channel / day, and two folders around it
_DRIVE = re.compile(r"[A-Za-z]:")
_LEAVES = "a path that leaves its folder"
_JUNK = frozenset({"__MACOSX", "__uploads"})  # beside what begins with a dot

Parts = tuple[str, ...]


class Entry(NamedTuple):
    """A file of the export: by what it is read, and what tells whether it changed."""

    path: str
    fingerprint: str
    size: int


class Refusal(NamedTuple):
    """A file or a folder that was not looked at. ``parts`` is empty where its place in the export is unknown."""

    parts: Parts
    path: str
    reason: str
    detail: str
    retry: bool = False

    @property
    def names(self) -> bool:
        """Whether this may be one of the files without which nothing of the export is what it was."""
        return self.reason != "duplicate_entry" and re.split(r"[/\\]", self.path)[-1] in _NAME_FILES


@dataclass(slots=True)
class Tree:
    """The day files of an export and the files of its names, by their parts; ``complete`` as of ``Listing``."""

    entries: dict[Parts, Entry] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    complete: bool = True

    def add(self, parts: Parts, entry: Entry) -> None:
        """Add a file if it is one of an export. Of two under one path the last is the file, as when it is unpacked."""
        if not _wanted(parts):
            return
        if (known := self.entries.get(parts)) and known[1:] != entry[1:]:
            self.refused.append(Refusal((), known.path, "duplicate_entry", "another entry has the same path"))
        self.entries[parts] = entry

    def refuse(self, refusal: Refusal, *, complete: bool = False) -> None:
        """Note what was not looked at."""
        self.refused.append(refusal)
        self.complete &= complete


def zip_tree(archive: zipfile.ZipFile) -> Tree:
    """The files of an archive. Separators of Windows are separators; what leaves the archive is refused."""
    tree = Tree()
    for info in archive.infolist():
        if not info.is_dir() and not info.filename.endswith("\\"):
            entry = Entry(info.filename, f"{info.CRC:08x}:{info.file_size}", info.file_size)
            _add_named(tree, _parts(_decoded(info)), entry)
    return tree


def objects_tree(root: Prefix) -> Tree:
    """The files below a prefix of an object store. Raises SourceError where it cannot be listed."""
    tree = Tree()
    try:
        for found in root.listing():
            _add_named(tree, _parts(found.path), Entry(found.path, found.fingerprint, found.size))
    except OSError as error:
        raise unreachable("slack_export", root, error) from None
    return tree


def _add_named(tree: Tree, parts: Parts, entry: Entry) -> None:
    """Add a file that is one by its name alone."""
    if _DRIVE.match(entry.path) or entry.path[:1] in ("/", "\\") or ".." in parts:
        # It may be a day of the export under a wrong name.
        harmless = not _wanted(parts[-1:] * 2)
        tree.refuse(Refusal((), entry.path, "unsafe_path", _LEAVES), complete=harmless)
    else:
        tree.add(parts, entry)


def folder_tree(root: Path) -> Tree:
    """The files below a folder. Links are followed as long as they stay below it.

    Raises SourceError where the root cannot be listed.
    """
    tree = Tree()
    try:
        _walk(root, "", (root,), tree)
    except OSError as error:  # of the root itself: what lies below is refused one by one
        raise SourceError(f"slack_export source: {root}: {error.strerror}") from None
    return tree


def find_export(paths: Iterable[Parts]) -> Parts:
    """The folder that the export is in: where its names and channels lie, or the only one below that has them.

    Raises SourceError where there are several.
    """
    return _find(list(paths), ()) or ()


def workspaces(paths: Iterable[Parts], root: Parts) -> dict[str, Parts]:
    """Folders that have channels of their own, by workspace: the export itself as "", those of an Enterprise Grid."""
    depth = len(root)
    found = {""} | {path[depth + 1] for path in paths if path[:depth] == root and _in_workspace(path, depth)}
    return {name: (*root, "teams", name) if name else root for name in sorted(found)}


def _in_workspace(path: Parts, depth: int) -> bool:
    """Whether a file lies where an Enterprise Grid export has those of a workspace: ``teams/<workspace>/…``."""
    days = DAY.fullmatch(path[-1]) is not None
    return path[depth] == "teams" and len(path) == depth + (4 if days else 3)


def _find(paths: list[Parts], root: Parts) -> Parts | None:
    depth = len(root)
    if any(len(path) == depth + 1 or (len(path) == depth + 2 and DAY.fullmatch(path[-1])) for path in paths):
        return root
    below: dict[str, list[Parts]] = {}
    for path in paths:
        below.setdefault(path[depth], []).append(path)
    if any(_in_workspace(path, depth) for path in below.get("teams", ())):
        return root
    found = [where for name, inner in below.items() if (where := _find(inner, (*root, name))) is not None]
    if len(found) > 1:
        raise SourceError("slack_export source: several exports lie in one place; a source for each is needed")
    return found[0] if found else None


def _wanted(parts: Parts) -> bool:
    if not parts or any(part in _JUNK or part.startswith(".") for part in parts):
        return False
    return parts[-1] in _NAME_FILES or (len(parts) > 1 and DAY.fullmatch(parts[-1]) is not None)


def _parts(name: str) -> Parts:
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _decoded(info: zipfile.ZipInfo) -> str:
    """An entry's name; UTF-8 that is not declared as such (macOS, old tools) was read as code page 437."""
    if not info.flag_bits & 0x800 and not info.filename.isascii():
        try:
            return info.filename.encode("cp437").decode()
        except UnicodeError:
            pass
    return info.filename


def _walk(root: Path, below: str, above: tuple[Path, ...], tree: Tree) -> None:
    folder = root / below
    if not os.access(folder, os.R_OK | os.X_OK):  # one that may be listed and not entered is one fault, not one a file
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    for found, path, parts in _entries(folder, below):
        if ".." in parts or ("\\" in found.name and (_DRIVE.match(found.name) or found.name[0] == "\\")):
            tree.refuse(Refusal((), path, "unsafe_path", _LEAVES), complete=not _wanted(parts[-1:] * 2))
            continue
        linked = found.is_symlink()
        if linked and parts[-1] not in _NAME_FILES and not inside(root, Path(found.path)):
            if _wanted(parts) or not os.path.isfile(found.path):
                why = "the link leaves the export"
                tree.refuse(Refusal(parts, path, "link_outside_root", why), complete=len(parts) <= 2)
            continue
        try:
            if found.is_dir():
                real = Path(os.path.realpath(found.path))
                if len(parts) < _DEPTH and not (linked and real in above):
                    _walk(root, path, (*above, real), tree)
            elif _wanted(parts) and found.is_file():
                status = found.stat()
                tree.add(parts, Entry(path, stat_fingerprint(status), status.st_size))
        except OSError as error:
            tree.refuse(Refusal(parts, path, "unreadable_folder", error.strerror or "", retry=True))


def _entries(folder: Path, below: str) -> Iterator[tuple[os.DirEntry[str], str, Parts]]:
    """The entries of a folder in the order of their names, but for junk: each with its path from the root, its parts.

    ``below`` is the folder's path from the root.
    """
    for found in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = f"{below}/{found.name}" if below else found.name
        parts = _parts(path)
        if parts and parts[-1] not in _JUNK and not parts[-1].startswith("."):
            yield found, path, parts
