"""The attempt log of one shard, by which an actor knows at which texts an earlier actor was killed.

An entry is made before each step. A step without an end killed a process: after a step of all texts they are encoded
one by one, and a single text without an end is poisonous. An entry is an empty file whose name tells its number and the
step ("00000002-all"), so that the log lies in a folder as well as in an object store.
"""

from __future__ import annotations

from jobs.state.storage import StatePath, replace_file

_ALL = "all"


class Attempts:
    """The log in a ``folder``, read on opening: ``poisonous`` are rows that killed a process each."""

    def __init__(self, folder: StatePath) -> None:
        self._folder = folder
        lines = [name.partition("-")[2] for name in entries(folder)]
        self._entries = len(lines)
        # A single text is followed by another where it did no harm, and by nothing or a new beginning where it killed.
        followed = zip(lines, [*lines[1:], _ALL], strict=True) if lines else ()
        self.poisonous = {int(line) for line, after in followed if line != _ALL and after == _ALL}
        self.one_by_one = bool(lines) and lines[-1] == _ALL

    def begin(self) -> None:
        """Note that all texts but the poisonous are encoded together."""
        self._note(_ALL)

    def begin_one(self, row: int) -> None:
        """Note that one text is encoded by itself."""
        self._note(str(row))

    def _note(self, step: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._entries += 1
        replace_file(self._folder / f"{self._entries:08}-{step}", b"", durable=False)


def entries(folder: StatePath) -> list[str]:
    """Names of the entries of a log, in their order."""
    return sorted(file.name for file in folder.iterdir() if file.name[0] != ".") if folder.exists() else []
