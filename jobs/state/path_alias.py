"""Path aliases: another name for a path that an engine cannot take as it is.

Any path that the file system takes is a legal one. Java's options end at a blank, Spark's folders at a comma, Java's
archives at a colon, and deltalake has troubles of its own. To them a path is shown through a link below a private
folder. It leads to the same place on this machine while this process lives: nothing may be stored by it or told to
another machine.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltalake import DeltaTable

_PLAIN = re.compile(r"[A-Za-z0-9/._+=-]+")
# deltalake (1.6.6) follows every link on its way to a local table. Then it panics at a bracket, a caret or a bar, takes
# "\\" for "/", decodes what only looks percent-encoded, and wants UTF-8.
_NOT_DELTALAKE = re.compile(r"[\[\]^|\\\udc80-\udcff\x00-\x1f]|%[0-9A-Fa-f]{2}")
LINKED = "opendal+fs://"  # what the uri of a table begins with to which a link leads
_links: dict[Path, Path] = {}
_mutex = threading.Lock()


def plain(path: Path) -> Path:
    """The absolute path itself where every engine takes it, else a link to it. The path need not exist."""
    if _PLAIN.fullmatch(str(path)):
        return path
    with _mutex:
        if path not in _links:
            _links[path] = _folder() / str(len(_links))
            _links[path].symlink_to(path)
        return _links[path]


def delta_uri(folder: Path) -> str:
    """What to call a Delta table's folder, an absolute path, for deltalake.

    Where its own store cannot go it is given another of its stores (OpenDAL's), which takes a link for a folder and
    commits a version only where there is none as well, but with a file that a crash may leave empty.
    """
    if not _NOT_DELTALAKE.search(str(folder)):
        return str(folder)
    # A table need not exist yet, and nothing is made at the end of a link that leads nowhere.
    known = plain(folder.parent) / folder.name if _PLAIN.fullmatch(folder.name) else plain(folder)
    return f"{LINKED}{known}"


def delta_files(table: DeltaTable, folder: Path, filters: Sequence[tuple[str, str, str]] = ()) -> list[Path]:
    """Paths of the data files of a table that was opened by ``delta_uri(folder)``; deltalake encodes the folder's."""
    root = table.table_uri.removeprefix("file://")
    found = table.file_uris(file_pruning_predicate=list(filters) or None)
    return [folder / uri.removeprefix("file://").removeprefix(root) for uri in found]


def _folder() -> Path:
    for link in _links.values():
        return link.parent
    where = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="embedmill-", dir=where if _PLAIN.fullmatch(where) else "/tmp"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)  # links are removed, not followed
