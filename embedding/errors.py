"""Every error embedmill raises on purpose, and the exit code that each one ends a command with.

EmbedmillError                 1  base; message is one line and never holds a document's text
├── ConfigError                2  a setting is wrong; names the key and the fix
├── SourceError                2  a source's root is missing, empty or unreadable as a whole
├── ResourceError              1  the machine cannot do it (disk full, no Java)
│   └── RefusedError           2  a store refuses the bucket, the credentials or the rights that are configured
├── EncoderError               1  the encoder fails on everything, not on single texts
├── DamagedStateError          1  a table of the state is damaged; names the table, the file and the fix
└── SafetyError                5  refused: going on could lose or mix data
    ├── SpaceMismatchError     5  state or index belongs to another embedding space
    ├── OwnershipError         5  the index is another state's
    ├── FidelityError          5  a backend's vectors are not the model's
    ├── MassDeleteError        5  the plan would delete too much of the index
    ├── BudgetError            5  the plan would cost more than was allowed, or the run does
    ├── ReadBackError          5  the index does not give back what was written to it
    ├── LostPurgesError        5  the rules that keep purged documents away are damaged
    └── LeaseHeldError         5  another run is writing
RejectedRecord                 -  one record cannot be processed; becomes a quarantine row, the run goes on
"""

from __future__ import annotations


class EmbedmillError(Exception):
    """Base of the hierarchy. ``exit_code`` is what a command that ends with it returns."""

    exit_code = 1


class ConfigError(EmbedmillError):
    """A setting is wrong; the message names the key and the fix."""

    exit_code = 2


class SourceError(EmbedmillError):
    """A source's root is missing, empty or unreadable as a whole. Never treated as a deletion."""

    exit_code = 2


class ResourceError(EmbedmillError):
    """The machine cannot do it: full disk, missing Java."""


class RefusedError(ResourceError):
    """A store refuses what this configuration asks: no such bucket, no credentials, no right. It would again."""

    exit_code = 2


class EncoderError(EmbedmillError):
    """The encoder fails on everything that it is given, not on single texts."""


class DamagedStateError(EmbedmillError):
    """A table of the state is damaged; the message names it, the file and the command that rebuilds it."""


class SafetyError(EmbedmillError):
    """Refused, because going on could lose or mix data."""

    exit_code = 5


class SpaceMismatchError(SafetyError):
    """The state or the index belongs to another embedding space."""


class OwnershipError(SafetyError):
    """The index is written by another state; the message names both and the command that takes it over."""


class FidelityError(SafetyError):
    """A backend's vectors are not those of the model that it says it runs."""


class MassDeleteError(SafetyError):
    """The plan would delete more of the index than ``limits`` allow."""


class BudgetError(SafetyError):
    """The plan would cost more than was allowed, or the run does."""


class ReadBackError(SafetyError):
    """The index took writes and does not give them back by the filter that users search with."""


class LostPurgesError(SafetyError):
    """The rules that keep purged documents away are damaged: going on without them could bring purged text back."""


class LeaseHeldError(SafetyError):
    """Another run holds the lease on this state."""


class RejectedRecord(Exception):
    """One record cannot be processed.

    ``reason`` is a stable snake_case code ("encrypted_pdf"); ``detail`` is a short sentence for a
    person and must hold no document text, URL or token. ``ignored`` is true where nothing is wrong with the record
    and there is no use for its kind (a picture): such a one fails no run and protects nothing.
    """

    def __init__(self, reason: str, detail: str = "", *, ignored: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.ignored = ignored
