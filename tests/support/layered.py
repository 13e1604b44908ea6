"""Rows of the layered table ``chunks`` for tests: appended as new ones, and merged as changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from embedding.records import CHUNK
from jobs.state.parts import write_part
from jobs.state.store import State
from tests.support.blank import blank

Key = tuple[str, str]  # team_id, chunk_id
TEAMS = [f"T{n}" for n in range(5)]
CUT = "c1"


def chunk(key: Key, text: str) -> dict[str, object]:
    return blank(CHUNK) | {"team_id": key[0], "chunk_id": key[1], "text": text, "meta": text, "content_hash": text}


def append(state: State, rows: Mapping[Key, str]) -> None:
    table = pa.Table.from_pylist([chunk(key, text) for key, text in rows.items()], schema=CHUNK)
    parts = write_part(state.root, "chunks", table, CUT, seq=state.next_seq("chunks"))
    state.append("chunks", parts)


def merge(state: State, rows: Mapping[Key, str], gone: Iterable[Key] = ()) -> None:
    listed: list[dict[str, object]] = [chunk(key, text) | {"_delete": False} for key, text in rows.items()]
    listed += [{"team_id": team, "chunk_id": chunk, "_delete": True} for team, chunk in gone]
    state.change("chunks", listed)
