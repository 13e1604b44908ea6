"""Purge: remove documents from every index version, the vectors and the text tables, and keep later runs from
bringing them back. The receipt says what went from where, and whether its bytes have gone from the files too.

The rule is recorded first, and the ledger's rows go last, as the index's are found by them: whatever dies between, the
documents stay out, and the same command goes on. A rule keeps away what is not newer than the purge; of a document that
is dated ahead of it, a rule of its own keeps away the version that it has.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from embedding.errors import ConfigError
from embedding.ids import document_id, document_ids, hashed_id
from jobs.forget import empty_engine_log, forget
from jobs.held import forget_held
from jobs.known import known_teams
from jobs.ownership import own_index
from jobs.report import Report
from jobs.scope import Scope
from jobs.scratch import scratch_left

if TYPE_CHECKING:
    from jobs.lease import Lease
    from jobs.mill import Mill

_HOLDING = ("chunks", "vectors", "published", "quarantine", "removals")
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
            rows = rows.filter(pc.is_in(document_ids(rows["chunk_id"]), pa.array(sorted(self.ids), pa.string())))
        return rows


_NEEDED = ["chunk_id", "team_id", "channel_id", "created_at"]
_Rule = Mapping[str, Any]  # a row of ``purges``


def purge(
    mill: Mill, *, team: str, channel: str, ids: Sequence[str], before: int | None, wait: float = 0.0
) -> dict[str, Any]:
    """Remove what the arguments name and return the receipt, which is in ``runs`` too.

    ``ids`` of chunks stand for their documents. Raises ConfigError for a team that is not known here, and for ids of
    another team; an id of the team that nothing is known of is kept away all the same, and is in ``unmatched``.
    """
    documents = _documents(team, ids)
    scope = Scope(teams=(team,), channels=(channel,) if channel else (), until=before)
    with mill.writing("purge", scope, wait) as (report, lease):
        own_index(mill)
        _check_team(mill, team)
        rule = {
            "team_id": team, "channel_id": channel, "ids": documents, "before": before,
            "purged_at": int(time.time() * 1_000_000), "run_id": report.run_id, "_delete": False,
        }  # fmt: skip
        rules = [rule, *_ahead(mill, rule)]
        mill.state.change("purges", rules)
        report.index = mill.live()
        report.receipt = _carry_out(mill, rules, lease, report.scratch_cleared)
        report.status = "ok"
    return {
        "run_id": report.run_id, "index": report.index, "scope": report.scope, "ids": len(documents)
    } | report.receipt  # fmt: skip


def _documents(team: str, ids: Sequence[str]) -> list[str]:
    """The documents that ids name, of themselves or of their chunks."""
    documents = sorted({document_id(given) for given in ids})
    strange = [given for given in documents if not given.startswith(f"{quote(team, '')}/")]
    if strange:
        raise ConfigError(
            f"--ids: {len(strange)} of {len(documents)} are no ids of team {team}, for example {strange[0]!r}; "
            f"they begin with {quote(team, '')}/; nothing was purged"
        )
    return documents


def _check_team(mill: Mill, team: str) -> None:
    """Raise ConfigError for a team that neither the configuration nor anything stored knows."""
    state = mill.state
    known = known_teams(mill) | set(state.values("vectors", "team_id"))
    known |= {found for name in ("quarantine", "purges") for (found,) in state.every_cut().distinct(name, ["team_id"])}
    known.discard("")  # of records that name no team
    if team in known:
        return
    for version in mill.index().versions() if mill.has_index() else ():
        for batch in mill.index().scan(version):
            if pc.any(pc.equal(batch["team_id"], team)).as_py():
                return
    shown = ", ".join(sorted(known)[:10]) or "none"
    raise ConfigError(f"--team: nothing is known of team {team!r}; known are {shown}; nothing was purged")


def _ahead(mill: Mill, rule: _Rule) -> list[dict[str, Any]]:
    """Rules for documents that a purge takes and that are dated after it: each version of them stays away."""
    needed = [*_NEEDED, "version"]
    rows = mill.state.every_cut().read("chunks", needed, pc.field("team_id") == rule["team_id"])
    rows = _target(rule).of(rows.filter(pc.greater(rows["version"], rule["purged_at"])))
    newest: dict[str, int] = {}
    for chunk, version in zip(rows["chunk_id"].to_pylist(), rows["version"].to_pylist(), strict=True):
        document = document_id(chunk)
        newest[document] = max(version, newest.get(document, version))
    by_version: dict[int, list[str]] = {}
    for document, version in newest.items():
        by_version.setdefault(version, []).append(document)
    return [{**rule, "ids": sorted(held), "purged_at": version} for version, held in sorted(by_version.items())]


def finish_purges(mill: Mill, lease: Lease) -> None:
    """Carry out what a purge that died has left: nothing of it may be published again.

    Such a purge has its rule, and no report that says it ended.
    """
    rules = mill.state.read("purges").to_pylist()
    if not rules:
        return
    ended = set(mill.state.read("runs", ["run_id"], pc.field("status") == "ok")["run_id"].to_pylist())
    unfinished: dict[str, list[_Rule]] = {}
    for rule in sorted(rules, key=lambda r: r["purged_at"]):  # those of documents dated ahead come after their purge's
        if rule["run_id"] not in ended:
            unfinished.setdefault(rule["run_id"], []).append(rule)
    if unfinished:
        own_index(mill)
    for run_id, (rule, *ahead) in unfinished.items():
        channels = (rule["channel_id"],) if rule["channel_id"] else ()
        scope = Scope(teams=(rule["team_id"],), channels=channels, until=rule["before"]).to_json()
        done = Report(run_id, "purge", mill.space_id, mill.live(), scope, rule["purged_at"], "ok")
        done.receipt = _carry_out(mill, [rule, *ahead], lease, 0)
        done.finished_at = int(time.time() * 1_000_000)
        mill.record(done)


def _target(rule: _Rule) -> Target:
    return Target(rule["team_id"], rule["channel_id"], frozenset(rule["ids"] or ()), rule["before"])


def _spared(rules: Sequence[_Rule], chunks: pa.Table) -> set[str]:
    """Chunks (chunk_id, version) that are newer than what the rules of one purge keep away."""
    rule, *ahead = rules
    kept_away = {document: one["purged_at"] for one in ahead for document in one["ids"]}
    newer = chunks.filter(pc.greater(chunks["version"], rule["purged_at"]))
    return {
        chunk for chunk, version in zip(newer["chunk_id"].to_pylist(), newer["version"].to_pylist(), strict=True)
        if version > kept_away.get(document_id(chunk), rule["purged_at"])
    }  # fmt: skip


def _carry_out(mill: Mill, rules: Sequence[_Rule], lease: Lease, cleared: int) -> dict[str, Any]:
    """Remove the rows that a purge's rules cover and return the receipt. Can be repeated wherever it died.

    The first rule says what is purged, the others which versions dated after it are. The texts and the ledger say what
    there is to remove. The ledger goes last: what had text and no ledger would be published again, and the index's rows
    are found by it. ``cleared`` folders of scratch have gone before.
    """
    state, everywhere = mill.state, mill.state.every_cut()
    target = _target(rules[0])
    team = target.team
    ours = pc.field("team_id") == team
    all_chunks = everywhere.read("chunks", [*_NEEDED, "content_hash", "version"], ours)
    chunks = target.of(all_chunks)
    held = target.of(everywhere.read("published", _NEEDED, ours))
    spared = _spared(rules, chunks)  # a newer version is a new document; there is one where this is done again
    doomed = (set(chunks["chunk_id"].to_pylist()) | set(held["chunk_id"].to_pylist())) - spared
    stay = all_chunks.filter(pc.invert(pc.is_in(all_chunks["chunk_id"], pa.array(doomed, pa.string()))))
    # All that no text of the team needs: a document's earlier texts, and deleted documents, are in no table, but their
    # vectors are.
    stored = set(everywhere.read("vectors", ["content_hash"], ours)["content_hash"].to_pylist())
    unused = stored - set(stay["content_hash"].to_pylist())
    removed = {"vectors": _drop(mill, "vectors", team, "content_hash", unused)}
    removed["chunks"] = _drop(mill, "chunks", team, "chunk_id", doomed)
    removed["index"], found, storage = _delete_rows(mill, target, doomed, spared, lease)
    removed["ledger"] = _drop(mill, "published", team, "chunk_id", doomed)
    named = _quarantined(mill, target)
    removed["quarantine"] = _drop_quarantine(mill, target, named)
    removed["removals"] = _drop_removals(mill, target, rules[0]["purged_at"])
    documents = {document_id(chunk) for chunk in doomed | found}
    unmatched = sorted(target.ids - documents - {document_id(key) for key in named})
    changed = [*_HOLDING, *["sources"] * forget_held(state, documents)]
    files = sum(forget(state, name) for name in changed)
    empty_engine_log(state)
    return {
        "removed": removed,
        "documents": _listed(state.hash_key, documents),
        "matched": len(target.ids) - len(unmatched) if target.ids else len(documents),
        "unmatched": unmatched[:_LISTED],
        "storage": {
            "tables": {"state": REMOVED, "files": files},
            "index": storage,
            "scratch": {"state": _scratch(scratch_left(state.root)), "folders": cleared},
            "engines.log": {"state": REMOVED},
        },
    }


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


def _quarantined(mill: Mill, target: Target) -> set[str]:
    """Keys in quarantine that the ids name."""
    if not target.ids:
        return set()
    keys = mill.state.every_cut().read("quarantine", ["key"], pc.field("team_id") == target.team)["key"].to_pylist()
    return {key for key in keys if {key, document_id(key)} & target.ids}


def _drop_quarantine(mill: Mill, target: Target, named: Iterable[str]) -> int:
    """Rows say what could not be read: by a whole purge all of the scope go, by one of ids those that name them.

    A record whose date is not known may be older than any; a partition as a whole (no key) is more than a record.
    """
    parts = [f"team_id = {_literal(target.team)}"]
    if target.channel:
        parts.append(f"channel_id = {_literal(target.channel)}")
    if target.before is not None:
        parts.append(f"(created_at < {target.before} OR (created_at IS NULL AND key != ''))")
    if not target.ids:
        return mill.state.drop("quarantine", " AND ".join(parts))
    return _drop(mill, "quarantine", target.team, "key", named)


def _drop_removals(mill: Mill, target: Target, purged_at: int) -> int:
    """What said that a document was deleted, up to the purge: its rule keeps away all that this could stand against."""
    columns = ["doc_id", "team_id", "channel_id", "created_at", "version"]
    rows = mill.state.every_cut().read("removals", columns, pc.field("team_id") == target.team)
    rows = target.of(rows.filter(pc.less_equal(rows["version"], purged_at)).rename_columns(["chunk_id", *columns[1:]]))
    return _drop(
        mill, "removals", target.team, "doc_id", set(rows["chunk_id"].to_pylist()), f" AND version <= {purged_at}"
    )  # fmt: skip


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _drop(mill: Mill, name: str, team: str, column: str, values: Iterable[str], further: str = "") -> int:
    count, listed = 0, sorted(values)
    for start in range(0, len(listed), _IDS):
        within = ", ".join(_literal(value) for value in listed[start : start + _IDS])
        count += mill.state.drop(name, f"team_id = {_literal(team)} AND {column} IN ({within}){further}")
    return count
