"""Shared by all commands: opening the pipeline, printing the answer, and turning an error into a line and a code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from embedding.errors import ConfigError, EmbedmillError, ResourceError
from jobs import termination
from jobs.redaction import without_userinfo
from jobs.telemetry import tracing
from jobs.telemetry.error_reporting import describe, disk_full

if TYPE_CHECKING:
    from jobs.bodies.base import Body
    from jobs.pipeline import Pipeline
    from jobs.telemetry.progress import Progress

B = TypeVar("B", bound="Body")

# As of a program that SIGPIPE has ended, which is what the shell says of `cat | head` too.
UNREAD = 128 + signal.SIGPIPE


class Unread(Exception):
    """The reader of standard output has closed it, as `head` does. Not an error."""


@contextmanager
def opened_pipeline(
    config: Path | None,
    model: str | None = None,
    index: str | None = None,
    *,
    rebuild: bool = False,
    needs_model: bool = True,
) -> Iterator[Pipeline]:
    """Open a configuration's pipeline, the terminal kept for our own lines. ``rebuild`` opens a damaged state too.

    One that ``needs_model`` not goes by what the newest run noted where the registry does not answer, and says so.

    Raises ConfigError where ``index`` is not the configured one, DamagedStateError or LostPurgesError for a damaged
    state.
    """
    from jobs.engines.terminal import own_terminal
    from jobs.state.integrity import damage_error, find_damage, first_damage

    pipeline = _open(config, model, index, needs_model=needs_model)
    debug = bool(os.environ.get("EMBEDMILL_DEBUG"))
    with redirect_stdout(sys.stderr) if debug else own_terminal(pipeline.state.engine_log):
        try:
            if not rebuild and (damage := first_damage(pipeline.state.root)):
                raise damage_error(pipeline.state.root, damage)
            yield pipeline
        except EmbedmillError:
            raise
        except Exception as error:
            # An engine that meets a damaged file says so in a hundred ways; looking for one is sure, and late enough.
            found = []
            if not termination.came() and not disk_full(error):
                with suppress(ResourceError):  # a store that is away says nothing of the tables
                    found = find_damage(pipeline.state.root)
            if found:
                raise damage_error(pipeline.state.root, found[0]) from error
            raise
        finally:
            try:
                if line := tracing.finish():
                    say(line)
                _tell_outside(pipeline)
            finally:
                pipeline.close()


def _open(config: Path | None, model: str | None, index: str | None, *, needs_model: bool) -> Pipeline:
    from jobs.config import default_config_file, load_config
    from jobs.engines.environment import quiet_engines

    loaded = load_config(config or default_config_file())
    if index is not None and index != loaded.index.name:
        raise ConfigError(f"--index: the configuration's index is {loaded.index.name!r}, not {index!r}")
    if model is not None:
        loaded = loaded.with_model(model)
    quiet_engines()
    from jobs.pipeline import Pipeline

    pipeline = Pipeline(loaded, own_progress(), needs_model=needs_model)
    if pipeline.unasked:
        say(pipeline.unasked)
    if not pipeline.state.private:
        say(f"state.uri: other users of this machine may read {pipeline.state.root}, and it is not ours to close")
    return pipeline


def _tell_outside(pipeline: Pipeline) -> None:
    """Tell Prometheus of a command that held the lease, or was refused it, and keep its page. No reason to fail."""
    if termination.came() or not (pipeline.wrote or pipeline.refused):
        return
    from jobs.metrics.export import export

    try:
        for line in export(pipeline, lease_refused=pipeline.refused):
            say(line)
    except Exception as error:
        say(f"telemetry: no metrics were told ({describe(error)}); the run is not affected")
    if pipeline.config.telemetry.pages and pipeline.wrote:
        from jobs.commands.run_page import keep_own_page

        try:
            keep_own_page(pipeline, pipeline.wrote)
        except Exception as error:
            say(f"telemetry.pages: the run's page was not kept ({describe(error)}); the run is not affected")


def own_progress() -> Progress:
    """What a person at this terminal, or in a scheduler's log, sees of the work."""
    from jobs.telemetry.progress import Progress

    return Progress(lines=os.environ.get("EMBEDMILL_PROGRESS") == "lines")


def guarded(command: Callable[[], int], as_json: bool) -> None:
    """Run a command; turn every known failure into one line and its exit code, and for a machine into an object."""
    try:
        code = command()
    except Unread:
        raise typer.Exit(UNREAD) from None
    except typer.Exit:
        raise
    except BaseException as error:
        # What an engine makes of an interrupt is no fault of its own.
        if isinstance(error, KeyboardInterrupt) or termination.came():
            interrupted(as_json)
            raise typer.Exit(128 + (termination.came() or signal.SIGINT)) from None
        if isinstance(error, EmbedmillError):
            kind, line, code = type(error).__name__, str(error), error.exit_code
        elif not isinstance(error, Exception):
            raise
        elif disk_full(error):
            kind, code = "ResourceError", ResourceError.exit_code
            line = "disk full while writing the state; free some space and run the same command again"
        elif os.environ.get("EMBEDMILL_DEBUG"):
            raise
        else:
            kind, code = type(error).__name__, 1
            line = f"{describe(error)}; set EMBEDMILL_DEBUG=1 to see the traceback"
    else:
        raise typer.Exit(code)
    fail(kind, line, code, as_json)
    raise typer.Exit(code)


def interrupted(as_json: bool) -> None:
    """Tell of the signal that asked the process to end, unless that was told."""
    number = termination.came() or signal.SIGINT
    if termination.first_to_tell():
        kind = "Interrupted" if number == signal.SIGINT else "Terminated"
        fail(kind, termination.line(number), 128 + number, as_json)


def fail(kind: str, line: str, code: int, as_json: bool) -> None:
    """Tell of a failure: one line to a person, and an object to a machine."""
    line = " ".join(without_userinfo(line).split())
    say(line)
    if as_json:
        with suppress(Unread):
            emit(error_object(kind, line, code))


def error_object(kind: str, line: str, code: int) -> str:
    """What a machine reads of a failure: ``ErrorBody``, made without it, as a signal handler may interrupt imports."""
    return json.dumps({"error": {"kind": kind, "exit_code": code, "message": line}})


def say(line: str) -> None:
    """One line to the user, on standard error."""
    with suppress(BrokenPipeError):  # its reader has closed it
        print(f"embedmill: {' '.join(line.split())}", file=sys.stderr)


def emit(text: str) -> None:
    """Print an answer. Raises Unread where its reader has closed it, ResourceError where it cannot be written."""
    try:
        print(text)
    except BrokenPipeError:
        raise Unread from None
    except OSError as error:
        raise ResourceError(f"standard output cannot be written: {error.strerror}") from None


def show(body: B, as_json: bool, human: Callable[[B], str]) -> None:
    """The answer of a command, on standard output."""
    emit(body.to_json() if as_json else human(body))
