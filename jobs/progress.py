"""What a person sees while a command works: phases and bars on standard error, nothing where that is no terminal."""

from __future__ import annotations

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


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task):  # type: ignore[no-untyped-def]
        from rich.text import Text

        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields.get('unit', '')}/s" if speed else "")


class Progress:
    """Shows one phase or bar at a time."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._off = quiet or not self._console.is_terminal

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A step whose length is not known."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Bars(*columns, console=self._console, disable=self._off, transient=True) as bars:
            bars.add_task(name, total=None)
            yield

    @contextmanager
    def bar(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A step of ``total`` units; yields the function that is told how many more are done."""
        columns = (
            TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Bars(*columns, console=self._console, disable=self._off) as bars:
            task = bars.add_task(name, total=total, unit=unit)
            yield lambda amount: bars.advance(task, amount)
