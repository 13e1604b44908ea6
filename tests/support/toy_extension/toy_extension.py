"""A package from outside: a source, an encoder, an index and a file format, registered when it is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedding.encoders.backends import BACKENDS, Backend
from embedding.encoders.spec import EncoderSpec
from embedding.errors import SourceError
from embedding.parsers import FORMATS, Format, Limits
from embedding.parsers.parsed import TextBuilder
from embedding.records import Document, Kind, Record, Rejected
from indexers import INDEXES, IndexKind, Settings
from indexers.exact import MAX_BYTES, ExactIndex
from jobs.config_sources import SourceSection
from jobs.sources import add_source
from jobs.sources.base import Listing, Partition, ReadLimits, SourceContext, stat_fingerprint

# -- a source: a folder of notes, a JSON object a file -----------------------------------------------------------------


class NotesSection(SourceSection):
    """``[[sources]]`` with ``kind = "notes"``."""

    kind: Literal["notes"]
    team_id: str
    channel: str = "notes"


class NotesSource:
    """Implements ``Source``."""

    kind: Kind = "message"

    def __init__(self, section: NotesSection, context: SourceContext) -> None:
        assert isinstance(context.root, Path)  # a section of its own has no address in an object store
        self.root, self.source_id, self.channel = context.root, context.source_id, section.channel
        self.team_id: str | None = section.team_id
        self.reader = f"notes:1:{section.channel}"
        self.names: Mapping[str, str] = {}

    def listing(self) -> Listing:
        files = sorted(self.root.glob("*.note"))
        if not files:
            raise SourceError(f"notes source: no note in {self.root}")
        return Listing(tuple(self._partition(file) for file in files))

    def _partition(self, file: Path) -> Partition:
        status = file.stat()
        return Partition(file.stem, str(file), stat_fingerprint(status), status.st_size, self.channel)

    def read(self, partition: Partition) -> Iterator[Record]:
        assert self.team_id is not None
        try:
            note = json.loads(Path(partition.path).read_bytes())
        except ValueError:
            yield Rejected("", "bad_note", "not JSON", self.channel, whole=True)
            return
        yield Document(
            doc_id=f"{self.team_id}/n/{partition.key}",
            team_id=self.team_id,
            channel_id=self.channel,
            channel_name=self.channel,
            kind="message",
            created_at=note["at"],
            updated_at=note["at"],
            version=note["at"],
            text=note["text"],
        )

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        return None


add_source(NotesSection, NotesSource)


# -- an encoder: letters, counted --------------------------------------------------------------------------------------


class LetterEncoder:
    """Implements ``Encoder``: how often each letter stands in a text."""

    name, device = "letters", "cpu"

    def __init__(self, spec: EncoderSpec) -> None:
        self.dim = spec.dim

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            np.add.at(out[row], [ord(char) % self.dim for char in text.lower()], 1.0)
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def close(self) -> None:
        pass


BACKENDS["letters"] = Backend(LetterEncoder, space="letters 1")


# -- a file format: lines after a first line of its own ----------------------------------------------------------------


def claims(data: bytes, name: str) -> bool:
    return data.startswith(b"%TOY\n")


def parse_toy(data: bytes, out: TextBuilder, limits: Limits) -> None:
    title, _, body = data.removeprefix(b"%TOY\n").decode().partition("\n")
    out.heading(1, title)
    out.add(body[::-1])  # stored backwards


FORMATS["toy"] = Format("application/x-toy", parse_toy, claims=claims)


# -- an index: the exact one, under another name -----------------------------------------------------------------------


def open_toy(uri: str, name: str, settings: Settings) -> ExactIndex:
    return ExactIndex(uri, name)


INDEXES["toy"] = IndexKind(open_toy, lambda: MAX_BYTES)
