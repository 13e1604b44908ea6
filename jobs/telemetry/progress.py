"""What a person sees while a command works: phases and bars on standard error, nothing where that is no terminal.

A scheduler's log is no terminal either, and is read by people: for it, a line as each phase ends and as a bar moves on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields.get('unit', '')}/s" if speed else "")


LINE_SECONDS = 10.0  # between two lines of a bar


class Progress:
    """Shows one phase or bar at a time; with ``lines`` as lines of a log."""

    def __init__(self, *, lines: bool = False) -> None:
        self._console = Console(stderr=True)
        self._off = lines or not self._console.is_terminal
        self._lines = lines

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A step whose length is not known."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        start = time.monotonic()
        with Bars(*columns, console=self._console, disable=self._off, transient=True) as bars:
            bars.add_task(name, total=None)
            yield
        self._line(f"{name}: {time.monotonic() - start:.1f} s")

    @contextmanager
    def bar(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A step of ``total`` units, unseen without any; yields the function that is told how many more are done."""
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        start = said = time.monotonic()
        done = 0
        with Bars(*columns, console=self._console, disable=self._off or not total) as bars:
            task = bars.add_task(name, total=total, unit=unit)

            def advance(amount: int) -> None:
                nonlocal done, said
                bars.advance(task, amount)
                done += amount
                now = time.monotonic()
                if now - said >= LINE_SECONDS or done >= total:
                    said = now
                    self._line(f"{name}: {done:,} of {total:,} {unit} in {now - start:.1f} s")

            yield advance

    def _line(self, text: str) -> None:
        if self._lines:
            self._console.out(text, highlight=False)
