"""Purge: remove documents from every index version, the vectors and the text tables, and keep later runs from
bringing them back. The receipt says what went from where, and whether its bytes have gone from the files too.

The rule is recorded first, and the ledger's rows go last, as the index's are found by them: whatever dies between, the
documents stay out, and the same command goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from embedding.ids import hashed_id
from jobs.forget import empty_engine_log, forget
from jobs.held import forget_held
from jobs.report import Report
from jobs.scope import Scope
from jobs.scratch import scratch_left

if TYPE_CHECKING:
    from jobs.lease import Lease
    from jobs.mill import Mill

_HOLDING = ("chunks", "removals", "vectors", "published", "quarantine")
_IDS = 2_000
_LISTED = 1_000  # hashed ids in a receipt; of more their number and one digest
REMOVED, LEFT = "removed", "left to the server"


@dataclass(frozen=True, slots=True)
class Target:
    """What is purged: of a team all, or a channel, documents by id, what was created before a time (µs)."""

    team: str
    channel: str = ""
    ids: frozenset[str] = frozenset()
    before: int | None = None

    def of(self, rows: pa.Table) -> pa.Table:
        """Those of the rows (chunk_id, team_id, channel_id, created_at) that are purged."""
        rows = rows.filter(pc.equal(rows["team_id"], self.team))
        if self.channel:
            rows = rows.filter(pc.equal(rows["channel_id"], self.channel))
        if self.before is not None:
            rows = rows.filter(pc.less(rows["created_at"], self.before))
        if self.ids:
            documents = pa.array([_document(chunk) for chunk in rows["chunk_id"].to_pylist()], pa.string())
            rows = rows.filter(pc.is_in(documents, pa.array(sorted(self.ids), pa.string())))
        return rows


_NEEDED = ["chunk_id", "team_id", "channel_id", "created_at"]


def purge(
    mill: Mill, *, team: str, channel: str, ids: Sequence[str], before: int | None, wait: float = 0.0
) -> dict[str, Any]:
    """Remove what the arguments name and return the receipt, which is in ``runs`` too."""
    scope = Scope(teams=(team,), channels=(channel,) if channel else (), until=before)
    with mill.writing("purge", scope, wait) as (report, lease):
        rule = {
            "team_id": team, "channel_id": channel, "ids": list(ids), "before": before,
            "purged_at": int(time.time() * 1_000_000), "run_id": report.run_id, "_delete": False,
        }  # fmt: skip
        mill.state.change("purges", [rule])
        report.index = mill.live()
        report.receipt = _carry_out(mill, rule, lease, report.scratch_cleared)
        report.status = "ok"
    return {"run_id": report.run_id, "index": report.index, "scope": report.scope, "ids": len(ids)} | report.receipt


def finish_purges(mill: Mill, lease: Lease) -> None:
    """Carry out what a purge that died has left: nothing of it may be published again.

    Such a purge has its rule, and no report that says it ended.
    """
    rules = mill.state.read("purges").to_pylist()
    if not rules:
        return
    ended = set(mill.state.read("runs", ["run_id"], pc.field("status") == "ok")["run_id"].to_pylist())
    for rule in rules:
        if rule["run_id"] not in ended:
            channels = (rule["channel_id"],) if rule["channel_id"] else ()
            scope = Scope(teams=(rule["team_id"],), channels=channels, until=rule["before"]).to_json()
            done = Report(rule["run_id"], "purge", mill.space_id, mill.live(), scope, rule["purged_at"], "ok")
            done.receipt = _carry_out(mill, rule, lease, 0)
            done.finished_at = int(time.time() * 1_000_000)
            mill.record(done)


def _carry_out(mill: Mill, rule: Mapping[str, Any], lease: Lease, cleared: int) -> dict[str, Any]:
    """Remove the rows that a rule covers and return the receipt. Can be repeated wherever it died.

    The texts and the ledger say what there is to remove. The ledger goes last: what had text and no ledger would be
    published again, and the index's rows are found by it. ``cleared`` folders of scratch have gone before.
    """
    state, everywhere = mill.state, mill.state.every_cut()
    team = rule["team_id"]
    target = Target(team, rule["channel_id"], frozenset(rule["ids"] or ()), rule["before"])
    ours = pc.field("team_id") == team
    all_chunks = everywhere.read("chunks", [*_NEEDED, "content_hash", "version"], ours)
    chunks = target.of(all_chunks)
    held = target.of(everywhere.read("published", _NEEDED, ours))
    # A newer version is a new document; there is one where a rule is carried out again.
    spared = set(chunks.filter(pc.greater(chunks["version"], rule["purged_at"]))["chunk_id"].to_pylist())
    doomed = (set(chunks["chunk_id"].to_pylist()) | set(held["chunk_id"].to_pylist())) - spared
    stay = all_chunks.filter(pc.invert(pc.is_in(all_chunks["chunk_id"], pa.array(doomed, pa.string()))))
    # All that no text of the team needs: a document's earlier texts, and deleted documents, are in no table, but their
    # vectors are.
    stored = set(everywhere.read("vectors", ["content_hash"], ours)["content_hash"].to_pylist())
    unused = stored - set(stay["content_hash"].to_pylist())
    removed = {"vectors": _drop(mill, "vectors", team, "content_hash", unused)}
    removed["chunks"] = _drop(mill, "chunks", team, "chunk_id", doomed)
    _drop_removals(mill, target, rule["purged_at"])
    removed["index"], found, storage = _delete_rows(mill, target, doomed, spared, lease)
    removed["ledger"] = _drop(mill, "published", team, "chunk_id", doomed)
    removed["quarantine"] = _drop_quarantine(mill, target)
    documents = {_document(chunk) for chunk in doomed | found}
    changed = [*_HOLDING, *["sources"] * forget_held(state, documents)]
    files = sum(forget(state, name) for name in changed)
    empty_engine_log(state)
    return {
        "removed": removed,
        "documents": _listed(state.hash_key, documents),
        "storage": {
            "tables": {"state": REMOVED, "files": files},
            "index": storage,
            "scratch": {"state": _scratch(scratch_left(state.root)), "folders": cleared},
            "engines.log": {"state": REMOVED},
        },
    }


def _document(chunk_id: str) -> str:
    return chunk_id.rsplit("#", 1)[0]


def _scratch(left: int) -> str:
    return f"{left} folders in use by running processes" if left else REMOVED


def _listed(key: bytes, documents: Collection[str]) -> dict[str, Any]:
    """Of documents their number, their hashed ids up to a number of them, and one digest of all hashed ids."""
    hashed = sorted(hashed_id(key, document) for document in documents)
    digest = hashlib.blake2b("\n".join(hashed).encode(), digest_size=16).hexdigest()
    return {"count": len(hashed), "hashed_ids": hashed[:_LISTED], "digest": digest}


def _delete_rows(
    mill: Mill, target: Target, doomed: Collection[str], spared: Collection[str], lease: Lease
) -> tuple[int, set[str], dict[str, str]]:
    """Delete from every version, also from those that are no longer or not yet live, and from its files.

    A killed run's rows may be in the index and in no table, so it is asked itself. Returns how many rows went, their
    keys, and by version whether its files hold them no more.
    """
    if not mill.has_index():
        return 0, set(), {}
    index, storage = mill.index(), {}
    removed, found = 0, set()
    for version in index.versions():
        keys = set(doomed)
        for batch in index.scan(version):
            keys |= set(target.of(pa.Table.from_batches([batch]))["chunk_id"].to_pylist()).difference(spared)
        count, listed = index.count(version), sorted(keys)
        with mill.progress.bar(f"purge {version}", len(listed), "rows") as advance:
            for start in range(0, len(listed), _IDS):
                lease.check()
                index.delete(version, listed[start : start + _IDS])
                advance(len(listed[start : start + _IDS]))
        index.flush(version)
        storage[version] = REMOVED if index.compact(version) else LEFT
        removed += count - index.count(version)
        found |= keys
    return removed, found, storage


def _drop_removals(mill: Mill, target: Target, purged_at: int) -> None:
    """What was said of purged documents' ends. An event after the purge may still have a newer text to beat."""
    said = mill.state.every_cut().read("removals", where=pc.field("team_id") == target.team)
    said = said.filter(pc.less_equal(said["version"], purged_at))
    named = target.of(said.rename_columns({"doc_id": "chunk_id"}))["chunk_id"].to_pylist()
    _drop(mill, "removals", target.team, "doc_id", set(named))


def _drop_quarantine(mill: Mill, target: Target) -> int:
    """Rows say what could not be read: by a whole purge all of the scope go, by one of ids those that name them."""
    parts = [f"team_id = {_literal(target.team)}"]
    if target.channel:
        parts.append(f"channel_id = {_literal(target.channel)}")
    if target.before is not None:
        parts.append(f"created_at < {target.before}")
    if not target.ids:
        return mill.state.drop("quarantine", " AND ".join(parts))
    keys = mill.state.every_cut().read("quarantine", ["key"], pc.field("team_id") == target.team)["key"].to_pylist()
    named = {key for key in keys if {key, _document(key)} & target.ids}
    return _drop(mill, "quarantine", target.team, "key", named)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _drop(mill: Mill, name: str, team: str, column: str, values: Collection[str]) -> int:
    count, listed = 0, sorted(values)
    for start in range(0, len(listed), _IDS):
        within = ", ".join(_literal(value) for value in listed[start : start + _IDS])
        count += mill.state.drop(name, f"team_id = {_literal(team)} AND {column} IN ({within})")
    return count
