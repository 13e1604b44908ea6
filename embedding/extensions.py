"""Modules of other packages that add a source, an index, an encoder or a file format; see ``docs/extending.md``.

A package names such a module in its metadata, under the entry point group ``embedmill.extensions``. Importing the
module registers what it adds. Metadata is found wherever the package is installed, so that Spark's and Ray's workers
and the isolated reader, which share no memory with the command, register the same.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from embedding.errors import ConfigError

GROUP = "embedmill.extensions"


@cache
def load_extensions() -> None:
    """Import every extension that is installed, once a process.

    Raises ConfigError where one cannot be imported.
    """
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise ConfigError(
                f"extension {entry.name} ({entry.value}) cannot be imported: {type(error).__name__}: {error}; "
                "mend or uninstall it"
            ) from error
