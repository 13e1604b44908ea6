"""The attempt log of one shard, by which an actor knows at which texts an earlier actor was killed.

A line is written before each step. A step without an end killed a process: after a step of all texts they are encoded
one by one, and a single text without an end is poisonous.
"""

from __future__ import annotations

from pathlib import Path

_ALL = "all"


class Attempts:
    """The log in ``file``, read on opening: ``poisonous`` are rows that killed a process each."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
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

    def _note(self, line: str) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._file.open("a") as diary:
            diary.write(f"{line}\n")
