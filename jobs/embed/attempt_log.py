"""Attempts: an actor's diary of one shard, so that the next actor knows what the last one died of.

A line is written before each step. Whoever finds a step without its end knows that it killed a process: of all texts
at once nothing follows but that they must be taken one by one, of a single text that it is the one.
"""

from __future__ import annotations

from pathlib import Path

_ALL = "all"


class Attempts:
    """The diary in ``file``, read on opening: ``poisonous`` are rows that killed a process each."""

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
