"""Rebuild: make damaged tables of the state again from what is left of them, the sources and the index.

Encodes nothing: vectors that are lost are read back from the index. ``purges`` is never rebuilt: without it, purged
documents would come back. What needs the sources is done by ``jobs.commands.verify.finish_rebuild``. Until that has
ended the tables count as damaged, so that a rebuild that was killed is simply begun again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexers.rows import SCAN
from jobs.report import new_run_id
from jobs.state.integrity import Damage, damage_error, find_damage, record_versions, rows_of
from jobs.state.parts import Part, write_part, write_rows
from jobs.state.staging import stage, staged
from jobs.state.storage import StatePath, read_parquet, remove_all, sizes_below
from jobs.state.store import State
from jobs.state.tables import CHANGES, CONVERSATIONS, PUBLISHED
from jobs.state.team_rows import group_teams, read_teams
from jobs.state.vector_column import pack
from jobs.versions import own_index

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline
    from jobs.state.lease import Lease

# What extract fills, and all of it by reading everything.
FILLED_BY_READING = frozenset({"sources", "chunks", "removals", "quarantine"})
_FETCH = 2_000  # vectors of one request
_TEXT_KEY = ["team_id", "content_hash"]
_SCANNED = pa.schema([SCAN.field(column) for column in (*_TEXT_KEY, "chunk_id")])


def rebuild(pipeline: Pipeline, *, wait: float) -> list[str]:
    """Make every damaged table whole, as far as that needs no source; returns their names.

    Raises LostPurgesError, before anything is changed, where the purge rules are damaged.
    """
    run_id = new_run_id()
    with pipeline.writable(run_id, wait) as lease:
        state = pipeline.state.every_cut()
        found = find_damage(state.root)
        for damage in found:
            if damage.table == "purges":
                raise damage_error(state.root, damage)
        names = sorted({damage.table for damage in found})
        if not names:
            return []
        own_index(pipeline)  # what is read back from another state's would count as ours
        reads = bool(FILLED_BY_READING & set(names))
        record_versions(state.root, rebuilding={*names, "sources"} if reads else names)
        for name in names:
            _keep_good_files(state, name, lease, [d for d in found if d.table == name])
        if reads:
            _read_all_again(state, lease, run_id)
        if "published" in names:
            _ledger_from_index(pipeline, state, lease, run_id)
        if "vectors" in names:
            _vectors_from_index(pipeline, state, lease, run_id)
    return names


def _keep_good_files(state: State, name: str, lease: Lease, damages: list[Damage]) -> None:
    """Leave of a table what can be trusted: its good files, or nothing.

    Raises LeaseHeldError where the lease was lost, before anything is removed.
    """
    lease.check()
    if not any(damage.log or f"/layer={CHANGES}/" in damage.file for damage in damages):
        for damage in damages:
            (state.root / damage.file).unlink(missing_ok=True)
        state.repair(name)
    elif name == "vectors":
        _adopt(state, name, lease)
    else:  # without its log or its changes it cannot be known which of its rows are current
        state.make_anew(name)


def _adopt(state: State, name: str, lease: Lease) -> None:
    """Write a table's log anew with every file that is there: a vector is never changed, so an old file does no harm.

    Unless it holds what was purged since: of teams that purged something, only the index is asked.
    """
    folder = state.root / name
    purged = set(state.read("purges", ["team_id"])["team_id"].to_pylist())
    state.make_anew(name, keep_files=True)
    parts = []
    for path, size in sorted(sizes_below(folder).items()):
        *folders, name_of_file = path.split("/")
        if folders[:1] == ["_delta_log"] or not name_of_file.endswith(".parquet"):
            continue
        file = folder / path
        partition = dict(part.split("=", 1) for part in folders)
        rows = rows_of(file)
        if rows is not None and purged.isdisjoint(_teams(file)):
            parts.append(Part(path, size, rows, partition))
            continue
        if rows is not None:
            kept = _others(read_parquet(file), purged)
            parts += write_rows(state.root, name, kept, {"space_id": partition["space_id"]})
        file.unlink()
    lease.check()
    state.append(name, parts)


def _teams(file: StatePath) -> set[str]:
    return set(read_parquet(file, ["team_id"])["team_id"].unique().to_pylist())


def _others(rows: pa.Table, teams: Set[str]) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["team_id"], pa.array(sorted(teams), pa.string()))))


def _read_all_again(state: State, lease: Lease, run_id: str) -> None:
    """Make ``sources`` anew, so that the next extract reads every partition.

    Partitions that chunks and removals came from are in it, as not read: one that has left its source is known to be
    gone.
    """
    lease.check()
    state.make_anew("sources")
    for cut in sorted({*state.values("chunks", "cut"), *state.values("removals", "cut")}):
        one = state.of_cut(cut)
        key = ["source_id", "partition"]
        owners = sorted(
            at for at in one.distinct("chunks", key) | one.distinct("removals", key) if at[0] != CONVERSATIONS
        )
        unread = {"fingerprint": "", "reader": "", "retry": False, "documents": 0, "run_id": run_id, "_delete": False}
        one.change("sources", [{"source_id": source, "partition": key, **unread} for source, key in owners])


def _ledger_from_index(pipeline: Pipeline, state: State, lease: Lease, run_id: str) -> None:
    """Write ``published`` anew: what the index holds is what its own scan says."""
    lease.check()
    state.make_anew("published")
    for version in pipeline.index().versions() if pipeline.has_index() else ():
        space_id = pipeline.index().space_of(version)
        parts, seq = list[Part](), state.next_seq("published")
        for batch in pipeline.index().scan(version):
            rows = pa.Table.from_batches([batch])
            said = {"index": version, "space_id": space_id, "run_id": run_id}
            for column in [name for name in PUBLISHED.names if name not in rows.column_names]:
                # What no index knows (which source a row came from) is null, until it is written again.
                rows = rows.append_column(column, pa.array([said.get(column)] * len(rows), pa.string()))
            parts += write_part(state.root, "published", rows, seq=seq)
        lease.check()
        state.append("published", parts)


def _vectors_from_index(pipeline: Pipeline, state: State, lease: Lease, run_id: str) -> None:
    """Store again the vectors that index versions hold and ``vectors`` does not; a few teams' keys at a time."""
    scanned = state.work(run_id) / "scan"
    try:
        for version in pipeline.index().versions() if pipeline.has_index() else ():
            space_id = pipeline.index().space_of(version)
            for teams in group_teams(_scan_keys(pipeline, version, scanned)):
                held = staged(scanned).data(_SCANNED).to_table(filter=pc.field("team_id").isin(teams))
                stored = read_teams(state, "vectors", teams, _TEXT_KEY, {"space_id": space_id})
                lost = held.join(stored, keys=_TEXT_KEY, join_type="left anti")
                lost = lost.group_by(_TEXT_KEY).aggregate([("chunk_id", "min")])
                for start in range(0, len(lost), _FETCH):
                    rows = _fetched(pipeline, version, lost.slice(start, _FETCH))
                    if not len(rows):
                        continue
                    for column, value in (("space_id", space_id), ("run_id", run_id)):
                        rows = rows.append_column(column, pa.array([value] * len(rows), pa.string()))
                    lease.check()
                    state.append("vectors", write_part(state.root, "vectors", rows))
    finally:
        remove_all(state.work(run_id))


def _scan_keys(pipeline: Pipeline, version: str, folder: StatePath) -> Counter[str]:
    """Stage team_id, content_hash and chunk_id of a version's rows; returns rows by team."""
    counts: Counter[str] = Counter()

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in pipeline.index().scan(version):
            yield batch.select(_SCANNED.names)
            for found in pc.value_counts(batch["team_id"]).to_pylist():
                counts[found["values"]] += found["counts"]

    stage(counted(), folder, _SCANNED)
    return counts


def _fetched(pipeline: Pipeline, version: str, rows: pa.Table) -> pa.Table:
    """Of rows (team_id, content_hash, chunk_id_min) those whose vector the index has: team_id, content_hash, vector."""
    vectors = pipeline.index().fetch_vectors(version, rows["chunk_id_min"].to_pylist())
    rows = rows.filter(pc.is_in(rows["chunk_id_min"], pa.array(list(vectors), pa.string())))
    if not len(rows):
        return rows
    matrix = np.stack([vectors[chunk] for chunk in rows["chunk_id_min"].to_pylist()]).astype(np.float32)
    return rows.select(_TEXT_KEY).append_column("vector", pack(matrix))
