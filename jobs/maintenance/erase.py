"""Purge: remove documents from every index version, the vectors and the text tables, and keep them out.

The receipt says what went from where, and whether its bytes have gone from the files too.

The rule is recorded first, and the ledger's rows go last, as the index's are found by them: whatever dies between, the
documents stay out, and the same command goes on. A rule keeps away what is not newer than the purge; of a document that
is dated ahead of it, a rule of its own keeps away the version that it has.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from embedding.ids import CONVERSATION, document_id, document_ids, hashed_id
from jobs.bodies import purge as bodies
from jobs.extract.broken_conversations import conversations_with, read_owners_again
from jobs.extract.held_deletions import drop_held
from jobs.registry.taints import mark_models
from jobs.registry.use import clear_trainings
from jobs.report import Report, record
from jobs.scope import Scope
from jobs.state.old_files import empty_engine_log, erase_dropped
from jobs.state.purge_rules import rule_of
from jobs.state.storage import StatePath, keeps_versions
from jobs.state.team_rows import read_teams
from jobs.state.work_folder import scratch_left
from jobs.versions import own_index

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline
    from jobs.state.lease import Lease

_HOLDING = ("chunks", "vectors", "published", "quarantine", "removals")
_IDS = 2_000
_LISTED = 1_000  # hashed ids in a receipt; of more their number and one digest
REMOVED, LEFT = "removed", "left to the server"
VERSIONS = "removed, and left to the store as former versions"


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
            rows = rows.filter(pc.is_in(document_ids(rows["chunk_id"]), pa.array(sorted(self.ids), pa.string())))
        return rows


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a purge leaves: chunks of its ``target`` that are ``spared``, and ``conversations`` without any of it."""

    target: Target
    spared: Set[str]
    conversations: frozenset[str]

    def broken(self, rows: pa.Table) -> set[str]:
        """Conversations of the team among rows (chunk_id, team_id, kind) that are not kept: in a table no more."""
        return set(_conversations(rows.filter(pc.equal(rows["team_id"], self.target.team)))) - self.conversations


def _conversations(rows: pa.Table) -> list[str]:
    found: list[str] = rows.filter(pc.equal(rows["kind"], "thread"))["chunk_id"].to_pylist()
    return found


NEEDED = ["chunk_id", "team_id", "channel_id", "kind", "created_at"]
Rule = Mapping[str, Any]  # a row of ``purges``


def finish_purges(pipeline: Pipeline, lease: Lease) -> None:
    """Carry out what a purge that died has left: nothing of it may be published again.

    Such a purge has its rule, and no report that says it ended.
    """
    rules = pipeline.state.read("purges").to_pylist()
    if not rules:
        return
    ended = set(pipeline.state.read("runs", ["run_id"], pc.field("status") == "ok")["run_id"].to_pylist())
    unfinished: dict[str, list[Rule]] = {}
    for rule in sorted(rules, key=lambda r: r["purged_at"]):  # those of documents dated ahead come after their purge's
        if rule["run_id"] not in ended:
            unfinished.setdefault(rule["run_id"], []).append(rule)
    if unfinished:
        own_index(pipeline)
    for run_id, (rule, *ahead) in unfinished.items():
        channels = (rule["channel_id"],) if rule["channel_id"] else ()
        scope = Scope(teams=(rule["team_id"],), channels=channels, until=rule["before"]).body()
        done = Report(run_id, "purge", pipeline.space_id, pipeline.live(), scope, rule["purged_at"], "ok")
        done.receipt = carry_out(pipeline, [rule, *ahead], lease, 0)
        done.finished_at = int(time.time() * 1_000_000)
        record(pipeline.state, done)


def target_of(rule: Rule) -> Target:
    """What a row of ``purges`` covers."""
    return Target(rule["team_id"], rule["channel_id"], frozenset(rule["ids"] or ()), rule["before"])


def _spared(rules: Sequence[Rule], chunks: pa.Table) -> set[str]:
    """Chunks (chunk_id, version) that are newer than what the rules of one purge keep away."""
    rule, *ahead = rules
    kept_away = {document: one["purged_at"] for one in ahead for document in one["ids"]}
    newer = chunks.filter(pc.greater(chunks["version"], rule["purged_at"]))
    return {
        chunk
        for chunk, version in zip(newer["chunk_id"].to_pylist(), newer["version"].to_pylist(), strict=True)
        if version > kept_away.get(document_id(chunk), rule["purged_at"])
    }


def carry_out(pipeline: Pipeline, rules: Sequence[Rule], lease: Lease, cleared: int) -> bodies.Receipt:
    """Remove the rows that a purge's rules cover and return the receipt. Can be repeated wherever it died.

    The first rule says what is purged, the others which versions dated after it are. The texts and the ledger say what
    there is to remove. The ledger goes last: what had text and no ledger would be published again, and the index's rows
    are found by it. ``cleared`` folders of scratch have gone before.
    """
    state, everywhere = pipeline.state, pipeline.state.every_cut()
    target = target_of(rules[0])
    team = target.team
    all_chunks = read_teams(everywhere, "chunks", [team], [*NEEDED, "content_hash", "version"])
    chunks = target.of(all_chunks)
    ledger = read_teams(everywhere, "published", [team], [*NEEDED, "content_hash"])
    held = target.of(ledger)
    spared = _spared(rules, chunks)  # a newer version is a new document; there is one where this is done again
    doomed = (set(chunks["chunk_id"].to_pylist()) | set(held["chunk_id"].to_pylist())) - spared
    told = conversations_with(everywhere, team, {document_id(chunk) for chunk in doomed})
    left = {one for members in told.values() for one in members} - {document_id(chunk) for chunk in doomed}
    again = read_owners_again(state, team, left, rules[0]["run_id"])
    doomed |= told.keys()
    stay = _without(all_chunks, doomed)
    trainings = clear_trainings(pipeline.config, state.root)
    marked = _mark(pipeline, rules, _documents(doomed))  # before anything goes that says which documents these are
    # All that no text of the team needs: a document's earlier texts, and deleted documents, are in no table, but their
    # vectors are.
    stored = set(read_teams(everywhere, "vectors", [team], ["content_hash"])["content_hash"].to_pylist())
    unused = stored - set(stay["content_hash"].to_pylist())
    if pipeline.config.text.rename_tokens is not None:  # rows that wait for a new name have their former vector
        unused -= set(_without(ledger, doomed)["content_hash"].to_pylist())
    removed = {"vectors": state.drop_rows("vectors", team, "content_hash", unused)}
    removed["chunks"] = state.drop_rows("chunks", team, "chunk_id", doomed)
    kept = _Kept(target, spared, frozenset(_conversations(stay)))
    doomed |= kept.broken(ledger)
    removed["index"], found, storage = _delete_rows(pipeline, kept, doomed, lease)
    removed["ledger"] = state.drop_rows("published", team, "chunk_id", doomed)
    named = _quarantined(pipeline, target)
    removed["quarantine"] = _drop_quarantine(pipeline, target, named)
    removed["removals"] = _drop_removals(pipeline, target, rules[0]["purged_at"])
    documents = _documents(doomed | found)
    if documents - _documents(doomed):
        marked |= _mark(pipeline, rules, documents)
    unmatched = sorted(target.ids - documents - {document_id(key) for key in named})
    changed = [*_HOLDING, *["sources"] * (drop_held(state, documents) or bool(again))]
    files = sum(erase_dropped(state, name) for name in changed)
    empty_engine_log(state)
    return bodies.Receipt(
        removed=bodies.Removed(**removed),
        documents=_listed(state.hash_key, documents),
        matched=len(target.ids) - len(unmatched) if target.ids else len(documents),
        unmatched=tuple(unmatched[:_LISTED]),
        storage=bodies.PurgedStorage(
            tables=bodies.PurgedTables(state=VERSIONS if keeps_versions(state.root) else REMOVED, files=files),
            index=storage,
            scratch=bodies.PurgedScratch(state=_scratch(state.root), folders=cleared),
            engines_log=bodies.PurgedLog(state=REMOVED),
        ),
        models=marked,
        trainings=trainings,
    )


def _documents(chunk_ids: Iterable[str]) -> set[str]:
    return {document_id(chunk) for chunk in chunk_ids if not re.match(CONVERSATION, chunk)}


def _mark(pipeline: Pipeline, rules: Sequence[Rule], documents: Collection[str]) -> dict[str, int]:
    covered = [rule_of(rule) for rule in rules]
    return mark_models(pipeline.config, pipeline.state, covered, rules[0]["run_id"], documents)


def _without(rows: pa.Table, chunk_ids: Collection[str]) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["chunk_id"], pa.array(chunk_ids, pa.string()))))


def _scratch(root: StatePath) -> str:
    left = scratch_left(root)
    found = f"{left} folders in use by running processes" if left else REMOVED
    return found if isinstance(root, Path) else f"{found} on this host"


def _listed(key: bytes, documents: Collection[str]) -> bodies.PurgedDocuments:
    """Of documents their number, their hashed ids up to a number of them, and one digest of all hashed ids."""
    hashed = sorted(hashed_id(key, document) for document in documents)
    digest = hashlib.blake2b("\n".join(hashed).encode(), digest_size=16).hexdigest()
    return bodies.PurgedDocuments(count=len(hashed), hashed_ids=tuple(hashed[:_LISTED]), digest=digest)


def _delete_rows(
    pipeline: Pipeline, kept: _Kept, doomed: Collection[str], lease: Lease
) -> tuple[int, set[str], dict[str, str]]:
    """Delete from every version, also from those that are no longer or not yet live, and from its files.

    A killed run's rows may be in the index and in no table, so it is asked itself. Returns how many rows went, their
    keys, and by version whether its files hold them no more.
    """
    if not pipeline.has_index():
        return 0, set(), {}
    index, storage = pipeline.index(), {}
    removed, found = 0, set()
    for version in index.versions():
        keys = set(doomed)
        for batch in index.scan(version):
            rows = pa.Table.from_batches([batch])
            keys |= set(kept.target.of(rows)["chunk_id"].to_pylist()).difference(kept.spared) | kept.broken(rows)
        count, listed = index.count(version), sorted(keys)
        with pipeline.progress.bar(f"purge {version}", len(listed), "rows") as advance:
            for start in range(0, len(listed), _IDS):
                lease.check()
                index.delete(version, listed[start : start + _IDS])
                advance(len(listed[start : start + _IDS]))
        index.flush(version)
        storage[version] = REMOVED if index.compact(version) else LEFT
        removed += count - index.count(version)
        found |= keys
    return removed, found, storage


def _quarantined(pipeline: Pipeline, target: Target) -> set[str]:
    """Keys in quarantine that the ids name."""
    if not target.ids:
        return set()
    keys = pipeline.state.every_cut().read("quarantine", ["key"], pc.field("team_id") == target.team)["key"].to_pylist()
    return {key for key in keys if {key, document_id(key)} & target.ids}


def _drop_quarantine(pipeline: Pipeline, target: Target, named: Iterable[str]) -> int:
    """Rows say what could not be read: by a whole purge all of the scope go, by one of ids those that name them.

    A record whose date is not known may be older than any; a partition as a whole (no key) is more than a record.
    """
    parts = [f"team_id = {_literal(target.team)}"]
    if target.channel:
        parts.append(f"channel_id = {_literal(target.channel)}")
    if target.before is not None:
        parts.append(f"(created_at < {target.before} OR (created_at IS NULL AND key != ''))")
    if not target.ids:
        return pipeline.state.drop("quarantine", " AND ".join(parts))
    return _drop(pipeline, "quarantine", target.team, "key", named)


def _drop_removals(pipeline: Pipeline, target: Target, purged_at: int) -> int:
    """What said that a document was deleted, up to the purge: its rule keeps away all that this could stand against."""
    columns = ["doc_id", "team_id", "channel_id", "created_at", "version"]
    rows = read_teams(pipeline.state.every_cut(), "removals", [target.team], columns)
    rows = target.of(rows.filter(pc.less_equal(rows["version"], purged_at)).rename_columns(["chunk_id", *columns[1:]]))
    return _drop(
        pipeline, "removals", target.team, "doc_id", set(rows["chunk_id"].to_pylist()), f" AND version <= {purged_at}"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _drop(pipeline: Pipeline, name: str, team: str, column: str, values: Iterable[str], further: str = "") -> int:
    count, listed = 0, sorted(values)
    for start in range(0, len(listed), _IDS):
        within = ", ".join(_literal(value) for value in listed[start : start + _IDS])
        count += pipeline.state.drop(name, f"team_id = {_literal(team)} AND {column} IN ({within}){further}")
    return count
