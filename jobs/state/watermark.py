"""The watermark: what the tables held when an index version was last all that it should be.

A run of every source that left nothing over keeps it. While the tables, the settings that a plan depends on and the
number of the index's rows are the same, a plan finds nothing to do, and needs to read no table. Where ``chunks`` alone
has changed since, and all of its changes are told, a plan looks at these. Whatever else differs, or cannot be told,
asks for a whole plan.

A table's contents are named by its data files, whose names never come twice. So it makes no difference which command
changed a table, how far it came, or that a folder was put back from a backup.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from embedding.errors import DamagedStateError
from embedding.models.space import short_hash
from jobs.state.changed_rows import Changed
from jobs.state.fencing import check
from jobs.state.quarantine import texts_left_out
from jobs.state.run_target import RunTarget
from jobs.state.storage import StatePath, replace_file, sizes_of
from jobs.state.store import State

WATERMARK = "watermark.json"
# Raise it when the rules of a plan change: what the rules before found settled may not be.
_RULES = 1
_PLANNED = ("chunks", "published", "vectors")


@dataclass(frozen=True, slots=True)
class Watermark:
    """An index version that lacks nothing: of which ``settings``, and a digest of each table's data files.

    ``chunks`` are the rows that should be in the index, and that the ledger has; ``index_rows`` what it counted.
    ``seq`` is the newest change of ``chunks``, and ``commit`` tells that table's last commit; empty where its log did
    not hold it.
    """

    settings: str
    tables: dict[str, str]
    chunks: int
    index_rows: int
    seq: int
    commit: str


def keep_watermark(target: RunTarget, *, lease: int, chunks: int, index_rows: int) -> None:
    """Keep that a version lacks nothing. Call it after the last commit of a run of everything, holding the lease.

    Nothing is kept where texts wait in quarantine for their vector, or a new name for its turn.

    Raises LeaseHeldError where a lease of a higher number than ``lease`` has committed.
    """
    tables = None if target.rename_tokens or len(texts_left_out(target.state)) else _contents(target, lease)
    if tables is None:
        drop_watermark(target.state.root)
        return
    seq, commit = target.state.newest_seq("chunks"), _commit(target.state)
    made = Watermark(_settings(target), tables, chunks, index_rows, seq, commit)
    if made != _read(target.state.root):
        # A loss of power may take it: then the next run plans.
        replace_file(target.state.root / WATERMARK, json.dumps(asdict(made)).encode(), durable=False)


def settled(target: RunTarget) -> Watermark | None:
    """The watermark of a version, where nothing that a plan of everything reads has changed since; else None.

    The index is not asked: compare ``index_rows`` with what it counts.
    """
    found = settled_but(target)
    return found[0] if found is not None and found[1] is None else None


def settled_but(target: RunTarget) -> tuple[Watermark, Changed | None] | None:
    """As ``settled``, also where changes of ``chunks`` are all that came since: then with these."""
    kept = _read(target.state.root)
    if kept is None or kept.settings != _settings(target):
        return None
    tables = _contents(target)
    if tables is None or any(tables[name] != kept.tables[name] for name in ("published", "vectors")):
        return None
    if tables == kept.tables:
        return kept, None
    if not kept.commit:
        return None
    version = int(kept.commit.partition(":")[0])
    # Is the table what it was, and more? One that was put back from a backup, or made anew, has not that commit.
    if _commit(target.state, version) != kept.commit:
        return None
    changed = target.state.changed_since("chunks", kept.seq)
    return (kept, changed) if changed.complete else None


def drop_watermark(root: StatePath) -> None:
    """Have the next run plan. Call it only while holding the lease."""
    (root / WATERMARK).unlink(missing_ok=True)


def _commit(state: State, version: int | None = None) -> str:
    """The number of a commit to ``chunks``, else of the last one, and a digest of it; empty where it is not there."""
    if version is None:
        table = state.found("chunks")
        version = table.version() if table is not None else -1
    log = state.root / "chunks" / "_delta_log"
    try:
        digest = hashlib.blake2b((log / f"{version:020d}.json").read_bytes(), digest_size=16)
    except FileNotFoundError:
        return ""
    return f"{version}:{digest.hexdigest()}"


def _read(root: StatePath) -> Watermark | None:
    try:
        return Watermark(**json.loads((root / WATERMARK).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # of another release, or damaged
        return None


def _settings(target: RunTarget) -> str:
    """A hash of what a plan depends on beside the tables."""
    return short_hash(
        [_RULES, target.version, target.space_id, target.state.cut, target.rename_tokens, repr(target.lexical)]
    )


def _contents(target: RunTarget, lease: int | None = None) -> dict[str, str] | None:
    """A digest of each table's data files; None where a table is missing.

    With ``lease``, to keep it: raises LeaseHeldError where a lease of a higher number has committed to one. Without, to
    believe it: None where a file is missing or has another length.
    """
    found: dict[str, str] = {}
    for name in _PLANNED:
        table = None
        with suppress(DeltaError, ValueError, DamagedStateError):  # the plan names what is damaged
            table = target.state.found(name)
        if table is None:
            return None
        if lease is not None:
            check(table, lease)  # of the version whose files are looked at
        sizes = _sizes(table)
        if lease is None and sizes_of(target.state.root / name, sizes) != sizes:
            return None
        found[name] = _digest(sizes)
    return found


def _sizes(table: DeltaTable) -> dict[str, int]:
    """Bytes of a table's data files by their path, in the order of paths."""
    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"])
    return dict(sorted(zip(*(column.to_pylist() for column in actions.columns), strict=True)))


def _digest(sizes: Mapping[str, int]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, size in sizes.items():
        digest.update(f"{path}\0{size}\n".encode())
    return digest.hexdigest()
