"""What a reconciler must do, in a few dictionaries: the oracle of the model-based test. Knows no table and no engine.

``known`` are the chunks as the sources were read last; ``index`` is what each version holds, ``ledger`` what it is
believed to hold; ``stored`` are the texts that have a vector. A command is judged by its writes, one after the other:
each must be one that the command owes, so that nothing is done twice or outside its scope, and where it ends well
nothing it owes is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from tests.support.in_process import Write

DAY_US = 86_400_000_000


class Differs(AssertionError):
    """Program and model do not agree. Its own class, so that no other failure passes for it."""


def agree(right: bool, *what: object) -> None:
    if not right:
        raise Differs(*what)


class Row(NamedTuple):
    """A chunk as the index shows it."""

    team: str
    channel: str
    name: str
    kind: str
    created: int
    version: int
    text: str


class Chunk(NamedTuple):
    """A row of the index, its document, and the partition that it was read from."""

    row: Row
    doc: str
    owner: tuple[int, str]  # number of the source, partition


@dataclass
class Part:
    """A partition as it is now: its documents as chunks by doc id, or torn; ``span`` bounds when they were created."""

    channel: str
    span: tuple[int, int]
    docs: dict[str, dict[str, Row]]
    torn: bool = False


@dataclass
class SourceNow:
    """A source as it is now."""

    team: str
    kind: str
    parts: dict[str, Part]


class Within(NamedTuple):
    """The scope of a command."""

    team: str = ""
    channel: str = ""
    since: int = 0
    until: int = 1 << 60
    kind: str = ""

    def covers(self, row: Row) -> bool:
        return (
            self.team in ("", row.team)
            and self.channel in ("", row.channel)
            and self.kind in ("", row.kind)
            and self.since <= row.created < self.until
        )

    @property
    def of_whole_sources(self) -> bool:
        return not self.channel and (self.since, self.until) == (0, 1 << 60)


class Rule(NamedTuple):
    """A purge. A version after ``at`` is a new document."""

    team: str
    channel: str
    ids: frozenset[str]
    before: int
    at: int

    def names(self, doc: str, row: Row) -> bool:
        return (
            row.team == self.team
            and self.channel in ("", row.channel)
            and (not self.ids or doc in self.ids)
            and row.created < self.before
        )


class Owed(NamedTuple):
    """What a command has to do to one version of the index."""

    version: str
    write: dict[str, Row]
    gone: set[str]
    texts: set[tuple[str, str]]


Key = TypeVar("Key", str, tuple[str, str])


def differing(found: Mapping[Key, object], wanted: Mapping[Key, object]) -> dict[Key, tuple[object, object]]:
    """By key what was found and what was wanted, of keys where these are not the same."""
    keys = found.keys() | wanted.keys()
    return {k: (found.get(k), wanted.get(k)) for k in sorted(keys) if found.get(k) != wanted.get(k)}


def doc_of(chunk_id: str) -> str:
    return chunk_id.rpartition("#")[0]


@dataclass
class Model:
    """The state as it ought to be. ``hash_of`` is how a text of a team is called in the vector store."""

    hash_of: Callable[[str, str], str]
    teams: tuple[str, ...]  # of the sources
    known: dict[str, Chunk] = field(default_factory=dict)
    index: dict[str, dict[str, Row]] = field(default_factory=lambda: defaultdict(dict))
    ledger: dict[str, dict[str, Row | None]] = field(default_factory=lambda: defaultdict(dict))  # None: was in flight
    stored: set[tuple[str, str]] = field(default_factory=set)
    quarantine: set[tuple[int, str]] = field(default_factory=set)
    rules: list[Rule] = field(default_factory=list)
    unfinished: list[Rule] = field(default_factory=list)  # purges that died
    pending: list[Write] = field(default_factory=list)  # what was in flight when a run died
    live: str = ""

    # -- reading the sources -------------------------------------------------------------------------------------------

    def read(self, sources: list[SourceNow], within: Within) -> tuple[dict[str, Chunk], set[tuple[int, str]]]:
        """``known`` and ``quarantine`` once the partitions that may hold something of the scope have been read."""
        whole: set[tuple[int, str]] = set()
        torn = set(self.quarantine)
        found: dict[str, list[tuple[int, int, str, dict[str, Row]]]] = {}
        for number, source in enumerate(sources):
            if within.team not in ("", source.team) or within.kind not in ("", source.kind):
                continue
            if within.of_whole_sources:
                at = {c.owner for c in self.known.values()} | self.quarantine
                gone = {o for o in at if o[0] == number and o[1] not in source.parts}
                whole |= gone
                torn -= gone
            for key, part in source.parts.items():
                if within.channel not in ("", part.channel):
                    continue
                if part.span[1] <= within.since or part.span[0] >= within.until:
                    continue
                if part.torn:
                    torn.add((number, key))
                    continue
                torn.discard((number, key))
                whole.add((number, key))
                for doc, chunks in part.docs.items():
                    row = next(iter(chunks.values()))
                    if not any(rule.names(doc, row) and row.version <= rule.at for rule in self.rules):
                        found.setdefault(doc, []).append((row.version, number, key, chunks))
        known = {k: c for k, c in self.known.items() if c.owner not in whole}
        for doc, claims in found.items():
            kept = {k: c for k, c in known.items() if c.doc == doc}
            others = [(c.row.version, *c.owner) for c in kept.values()]
            best = max(claims, key=lambda claim: claim[:3])
            if not others or best[:3] > max(others):
                for k in kept:
                    del known[k]
                known |= {k: Chunk(row, doc, (best[1], best[2])) for k, row in best[3].items()}
        return known, torn

    # -- purges --------------------------------------------------------------------------------------------------------

    def doomed(self, rule: Rule) -> set[str]:
        """Keys that a purge removes from everywhere."""
        keys = {k for k, c in self.known.items() if rule.names(c.doc, c.row)}
        for version, rows in self.ledger.items():
            for k, believed in rows.items():
                row = believed or self.index[version].get(k)
                if row is None:  # in flight, and nothing is there
                    continue
                if rule.names(doc_of(k), row):
                    keys.add(k)
        return keys

    def unused(self, rules: Iterable[Rule], doomed: set[str]) -> set[tuple[str, str]]:
        """Stored texts of the rules' teams that nothing needs but what goes: earlier and deleted texts as well."""
        teams = {rule.team for rule in rules}
        needed = {(c.row.team, self.hash_of(c.row.team, c.row.text)) for k, c in self.known.items() if k not in doomed}
        return {text for text in self.stored if text[0] in teams} - needed

    def carry_out(self, rule: Rule) -> None:
        """Remove what a purge removes."""
        doomed = self.doomed(rule)
        self.stored -= self.unused([rule], doomed)
        tables: list[dict[str, Any]] = [self.known, *self.index.values(), *self.ledger.values()]
        for rows in tables:
            for k in doomed & rows.keys():
                del rows[k]

    # -- judging a command ---------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Hold the rows that a killed run was writing for unknown."""
        for write in self.pending:
            held = self.ledger[write.version]
            for k in write.keys | (write.removed & held.keys()):
                held[k] = None

    def owed(self, version: str, within: Within) -> Owed:
        """What a version must be given and must lose, by what is believed of it; and the texts to encode for that."""
        held = self.ledger[version]
        index = self.index[version]
        write = {k: c.row for k, c in self.known.items() if within.covers(c.row) and held.get(k) != c.row}
        gone = set()
        for k in held.keys() - self.known.keys():
            row = held[k] or index.get(k)
            if row is None or within.covers(row):
                gone.add(k)
        texts = {(row.team, self.hash_of(row.team, row.text)) for row in write.values()}
        return Owed(version, write, gone, texts - self.stored)

    def outdated(self, version: str) -> set[str]:
        """What a version must lose before it is shown again: all that it does not show as it is now."""
        return {
            k
            for k, row in self.ledger[version].items()
            if row is None or k not in self.known or self.known[k].row.text != row.text
        }

    def follow(self, writes: list[Write], goal: Model, owed: Owed, *, died: bool) -> None:
        """Take over what a command wrote on its way to ``goal``, and judge each write by what it ``owed``."""
        doomed = {k for rule in self.unfinished for k in self.doomed(rule)}
        unused = self.unused(self.unfinished, doomed)
        for write in writes:
            if write.where == "purges" and write.done:
                for row in write.rows:
                    rule = Rule(
                        row["team_id"],
                        row["channel_id"],
                        frozenset(row["ids"]),
                        row["before"] or 1 << 60,
                        row["purged_at"],
                    )
                    self.rules.append(rule)
                    self.unfinished.append(rule)
                    doomed |= self.doomed(rule)
                unused |= self.unused(self.unfinished, doomed)
            elif write.where == "doubt" and write.done:
                self.recover()
            elif write.where == "quarantine" and write.done and not write.purging:
                self.quarantine = set(goal.quarantine)
            elif write.where == "alias" and write.done:
                self.live = write.version
            elif write.where == "vectors":
                agree(not write.keys & self.stored, "a text is encoded once", write)
                agree(write.keys <= owed.texts, "only what is owed is encoded", write)
                agree(write.removed <= unused, "a vector that is in use was removed", write)
                if write.done:
                    self.stored = (self.stored | write.keys) - write.removed
            elif write.where in ("chunks", "index", "published"):
                self._follow_rows(write, goal, owed, doomed)
        ours = [write for write in writes if write.where in ("index", "published") and not write.purging]
        if any(write.where != "doubt" for write in writes):
            self.pending = []
        if died and writes[-1] in ours:
            self.pending.append([write for write in ours if write.where == "index"][-1])

    def _follow_rows(self, write: Write, goal: Model, owed: Owed, doomed: set[str]) -> None:
        if write.purging:
            removed = {k if isinstance(k, str) else k[1] for k in write.removed}
            # What was in flight may not have arrived: the ledger doubts it, and removing nothing is no fault.
            doubted = {
                k
                for version, held in self.ledger.items()
                for k, believed in held.items()
                if believed is None and k not in self.index[version]
            }
            agree(removed <= doomed | doubted, "a purge removed what it does not name", write)
        else:
            removed = set(write.removed)
        if write.where == "chunks":
            for k in write.keys:
                agree(k in goal.known and self.known.get(k) != goal.known[k], "a chunk that did not change", k)
            agree(write.purging or not removed & goal.known.keys(), "a chunk that is still there was removed", write)
        else:
            agree(
                write.keys <= owed.write.keys(), "a row that is not owed", write.version, write.keys - owed.write.keys()
            )
            agree(
                write.purging or removed <= owed.gone, "a row outside the scope, or that is desired, was removed", write
            )
        if not write.done:
            return
        if write.where == "chunks":
            self.known = {k: c for k, c in self.known.items() if k not in removed}
            self.known |= {k: goal.known[k] for k in write.keys}
            return
        if write.where == "published" and write.purging:
            for version, k in write.removed:
                del self.ledger[version][k]
            return
        if write.where == "published":
            index = self.index[write.version]
            right = all(index.get(k) == owed.write[k] for k in write.keys) and not removed & index.keys()
            agree(right, "the ledger says what the index does not hold", write)
        rows = (self.index if write.where == "index" else self.ledger)[write.version]
        for k in removed:
            rows.pop(k, None)
        rows |= {k: owed.write[k] for k in write.keys}

    def reached(self, goal: Model, within: Within, *, published: str = "", left: Sequence[Rule] = ()) -> None:
        """After a command that ended well: all that it owed is done. ``left`` are purges that died and wait."""
        agree(self.known == goal.known, "what is known is not what the sources hold", differing(self.known, goal.known))
        agree(self.quarantine == goal.quarantine, "quarantine", self.quarantine, goal.quarantine)
        self.unfinished = list(left)
        for rule in self.rules:
            if rule in left:
                continue
            for k, c in self.known.items():
                agree(not rule.names(c.doc, c.row) or c.row.version > rule.at, "purged, and known again", k)
            for rows in self.index.values():
                for k, row in rows.items():
                    agree(not rule.names(doc_of(k), row) or row.version > rule.at, "purged, and in the index", k)
        if published:
            rows, held = self.index[published], self.ledger[published]
            desired = {k: c.row for k, c in self.known.items() if within.covers(c.row)}
            found = {k: row for k, row in rows.items() if k in desired or (k not in self.known and within.covers(row))}
            agree(found == desired, "the index is not what is desired", differing(found, desired))
            agree(all(held[k] == row for k, row in desired.items()), "the ledger does not know the index")

    def counted(self, within: Within) -> bool:
        """Whether something of the scope is in quarantine; there are torn days alone."""
        return within.kind != "file" and any(
            within.team in ("", self.teams[n]) and within.channel in ("", key.partition("/")[0])
            for n, key in self.quarantine
        )
