"""The command line: its commands, signals, exit codes, and the errors of its arguments. The work is elsewhere."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from jobs import termination
from jobs.cli import doctor, evaluate, index_versions, lookup, models, purge, reconcile, state
from jobs.cli.frame import UNREAD, Unread, emit, error_object, fail, interrupted, say
from jobs.telemetry.error_reporting import safe_traceback

app = typer.Typer(
    help=(
        "Reconcile a search index with its sources: embed what is new, reuse what is stored, delete what is gone.\n\n"
        "A first session: `embedmill plan` shows what a run would do, `embedmill run` does it, `embedmill verify` "
        'proves it, `embedmill search "TEXT" --team T` uses it.\n\n'
        "Exit codes: 0 done; 1 unexpected fault; 2 usage or configuration error; 3 done, but records in the scope are "
        "in quarantine; 4 verification found a difference; 5 refused for safety."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        try:
            emit(f"embedmill {version('embedmill')}")
        except PackageNotFoundError:
            emit("embedmill, of a copy that is not installed")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Hold the options of no command."""


# In the order of the help.
_COMMANDS: dict[str, Callable[..., None]] = {
    "plan": reconcile.plan,
    "run": reconcile.run,
    "step": reconcile.step,
    "search": lookup.search,
    "serve": lookup.serve,
    "evaluate": evaluate.evaluate,
    "train": models.train,
    "promote": models.promote,
    "verify": reconcile.verify,
    "reindex": index_versions.reindex,
    "rollback": index_versions.rollback,
    "takeover": index_versions.takeover,
    "gc": index_versions.gc,
    "config": lookup.show_config,
    "vespa-package": index_versions.vespa_package,
    "status": lookup.status,
    "explain": lookup.explain,
    "doctor": doctor.doctor,
    "report": lookup.report,
    "purge": purge.purge,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=lookup.StatusCommand if _name == "status" else None)(_command)
app.add_typer(state.app, name="state")


def main() -> None:
    """Entry point of the console script: a mistake in the arguments gets one line too."""
    from jobs.engines.ray import end_ray
    from jobs.engines.terminal import OwnOutput

    as_json = "--json" in sys.argv[1:]
    sys.stdout = output = OwnOutput(sys.stdout)
    try:
        sys.exit(app(prog_name="embedmill", standalone_mode=False))
    except (Abort, KeyboardInterrupt):
        interrupted(as_json)
        sys.exit(128 + (termination.came() or signal.SIGINT))
    except TyperException as error:
        text = error.format_message()
        if "\n" in text:  # the help, for a command line without a command
            print(text, file=sys.stderr)
        else:
            fail("UsageError", f"{text.rstrip('.')}; see `embedmill --help`", error.exit_code, as_json)
        sys.exit(error.exit_code)
    except (Unread, BrokenPipeError):
        sys.exit(UNREAD)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # of the help, which typer prints
            sys.exit(UNREAD)
        raise
    except Exception as error:  # one that ``_guarded`` let through for EMBEDMILL_DEBUG
        print(safe_traceback(error), file=sys.stderr)
        sys.exit(1)
    finally:
        output.end()
        if termination.came():
            with suppress(OSError):
                output.flush()
            termination.end_now(128 + termination.came())  # a Ray that is asked to end takes seconds
        end_ray()


def script() -> None:
    """Entry point of a process of its own: ``main``, and an end at once.

    Everything is closed and stored by then. Unloading the libraries takes a third of a second and does nothing else.
    """
    code = 1
    atexit.register(lambda: os._exit(code))  # the first to be registered is the last to be called
    try:
        heed_signals()
        main()
    except SystemExit as end:
        code = exit_code(end)
    except KeyboardInterrupt:  # before anything was begun
        interrupted("--json" in sys.argv[1:])
        code = 128 + (termination.came() or signal.SIGINT)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = UNREAD
    except OSError as error:
        code = 1
        say(f"standard output cannot be written: {error.strerror}")


def heed_signals() -> None:
    """Have a signal that asks this process to end be one line, and the end of its engines too."""
    out, err = os.dup(1), os.dup(2)  # the terminal's own, whatever an engine is given meanwhile

    def tell(number: int) -> None:
        line, kind = termination.line(number), "Interrupted" if number == signal.SIGINT else "Terminated"
        os.write(err, f"embedmill: {line}\n".encode())
        if "--json" in sys.argv[1:]:
            os.write(out, f"{error_object(kind, line, 128 + number)}\n".encode())

    termination.heed(tell)


def exit_code(end: SystemExit) -> int:
    """What the interpreter would make of it."""
    return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    script()
