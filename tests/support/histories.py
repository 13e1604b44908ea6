"""Random histories of documents, and an oracle that knows only that the newest event of an id wins.

What can be read it looks at as it stands. Of what cannot be read it remembers what was shown before, by the rules that
``jobs/extract/held_deletions.py`` states: until something newer is seen, the old text stays.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.events import Said

DOCS, PARTITIONS = ("x", "y", "z"), ("a/1", "a/2", "a/3", "b/1", "b/2")


class Event(NamedTuple):
    """One event of a document, ordered as the newest wins; ``text`` is None where it took the document away."""

    version: int
    deleted: bool
    partition: str  # "a/1": by source, then by partition
    text: str | None


def visible(partition: str, said: list[Said]) -> list[tuple[str, Event]]:
    """The events that can be read, up to where the partition is torn."""
    found = []
    for one in said:
        if one.what == "torn":
            break
        if one.what in ("text", "gone", "emptied"):
            words = one.text if one.what == "text" else None
            found.append((one.doc, Event(one.version, one.what == "gone", partition, words)))
    return found


@dataclass
class Oracle:
    """What is shown of one story, and what is remembered of its partitions."""

    shown: dict[str, Event] = field(default_factory=dict)
    removals: dict[str, dict[str, Event]] = field(default_factory=dict)
    digests: dict[str, Counter[str]] = field(default_factory=dict)
    suspects: dict[str, set[str]] = field(default_factory=dict)
    held: dict[str, set[str]] = field(default_factory=dict)

    def run(self, partitions: dict[str, list[Said]]) -> None:
        """Take over the partitions as they are now."""
        events = [found for key, said in partitions.items() for found in visible(key, said)]
        open_, fresh, protected = set[str](), set[str](), set[tuple[str, str]]()
        for key, said in partitions.items():
            torn = any(one.what == "torn" for one in said)
            read = said[: next((n for n, one in enumerate(said) if one.what == "torn"), len(said))]
            protected |= {(one.doc, key) for one in read if one.what == "unreadable"}
            if torn:
                open_.add(key)
                self.digests.setdefault(key, Counter())
                continue
            now = Counter(one.text for one in read if one.what == "nameless")
            new = now - self.digests.get(key, now)
            self.suspects[key] = (self.suspects.get(key, set()) & set(now)) | set(new)
            self.digests[key] = now
            if new:
                open_.add(key)
                fresh.add(key)
            elif self.suspects[key]:
                protected |= {(doc, key) for doc in self.held.get(key, ())}
        for key in self.digests.keys() - partitions.keys():
            for memory in (self.digests, self.suspects, self.held, self.removals):
                memory.pop(key, None)
        spared = {doc for doc, _ in protected}
        remembered = [(d, e) for d, e in self.shown.items() if e.partition in open_ or d in spared]
        for key, known in self.removals.items():
            remembered += [(d, e) for d, e in known.items() if self._open(key, open_) or (d, key) in protected]
        before, self.shown, winners = self.shown, {}, dict[str, Event]()
        for doc, event in [*events, *remembered]:
            best = winners.get(doc)
            if best is None or event[:3] > best[:3]:
                winners[doc] = event
        kept = {d: e for d, e in winners.items() if e == before.get(d) and (d, e) not in events}
        for doc, event in winners.items():
            if event.text is not None:
                self.shown[doc] = self._handed_on(doc, event, kept, open_, protected)
        self._remember(partitions, open_, protected, events)
        for key in partitions.keys() - (open_ - fresh):
            stays = {d for d, e in self.shown.items() if e.partition == key and d in kept}
            named = {one.doc for one in partitions[key] if one.what == "unreadable"}
            waits = stays if key in fresh else stays & self.held.get(key, set()) if self.suspects[key] else set()
            self.held[key] = waits - named
        for key in open_ - fresh:
            self.held[key] = {d for d in self.held.get(key, ()) if d in kept or d not in winners}

    def _handed_on(
        self, doc: str, event: Event, kept: dict[str, Event], open_: set[str], protected: set[tuple[str, str]]
    ) -> Event:
        """A text whose partition let go of it belongs to the one that has its document, unreadable."""
        at = event.partition
        if doc not in kept or at in open_ or (doc, at) in protected:
            return event
        return event._replace(partition=max(key for d, key in protected if d == doc))

    def _open(self, key: str, open_: set[str]) -> bool:
        """Whether a deletion that the partition no longer shows may be a record of it that cannot be read."""
        return key in open_ or bool(self.suspects.get(key))

    def _remember(
        self,
        partitions: dict[str, list[Said]],
        open_: set[str],
        protected: set[tuple[str, str]],
        events: list[tuple[str, Event]],
    ) -> None:
        for key in partitions:
            known = self.removals.get(key, {})
            self.removals[key] = {d: e for d, e in known.items() if self._open(key, open_) or (d, key) in protected}
            for doc, event in events:
                if event.partition == key and event.text is None:
                    stood = self.removals[key].get(doc)
                    if stood is None or not self._open(key, open_) or event[:2] > stood[:2]:
                        self.removals[key][doc] = event


@dataclass
class History:
    """Partitions of one story under random changes; ``faults`` where some of them make records unreadable."""

    random: random.Random
    faults: bool
    partitions: dict[str, list[Said]] = field(default_factory=dict)
    clock: int = 0
    oracle: Oracle = field(default_factory=Oracle)
    told: list[str] = field(default_factory=list)  # what happened, shown with a failure

    def change(self) -> None:
        """One to three things happen."""
        acts = [self.write] * 4 + [self.delete, self.delete, self.empty, self.drop, self.lose, self.rename, self.replay]
        acts += [self.tear, self.hide, self.hide, self.nameless, self.clear] if self.faults else []
        for _ in range(self.random.randint(1, 3)):
            self.random.choice(acts)()
        self.told.append("; ".join(f"{key}: {said}" for key, said in sorted(self.partitions.items())))

    def _say(self, one: Said) -> None:
        """Append to a partition what it does not already say of this document and version."""
        said = self.partitions.setdefault(self.random.choice(PARTITIONS), [])
        if not any((o.doc, o.version) == (one.doc, one.version) for o in said):
            said.insert(self.random.randint(0, len(said)), one)

    def _version(self) -> int:
        self.clock += 1
        return self.clock - self.random.choice((0, 0, 1, 2))  # at times older than, or as old as, what there is

    def write(self) -> None:
        version = self._version()
        self._say(Said("text", self.random.choice(DOCS), version, f"words {self.random.randint(0, 999)} of {version}"))

    def delete(self) -> None:
        self._say(Said("gone", self.random.choice(DOCS), self._version()))

    def empty(self) -> None:
        self._say(Said("emptied", self.random.choice(DOCS), self._version()))

    def _some(self) -> tuple[str, int] | None:
        places = [(key, n) for key, said in sorted(self.partitions.items()) for n in range(len(said))]
        return self.random.choice(places) if places else None

    def lose(self) -> None:
        if place := self._some():
            del self.partitions[place[0]][place[1]]

    def drop(self) -> None:
        if self.partitions:
            del self.partitions[self.random.choice(sorted(self.partitions))]

    def rename(self) -> None:
        free = [key for key in PARTITIONS if key not in self.partitions]
        if self.partitions and free:
            self.partitions[self.random.choice(free)] = self.partitions.pop(self.random.choice(sorted(self.partitions)))

    def replay(self) -> None:
        """An event is seen once more, in another partition."""
        place = self._some()
        if place and (one := self.partitions[place[0]][place[1]]).what in ("text", "gone", "emptied"):
            self._say(one)

    def tear(self) -> None:
        if self.partitions:
            said = self.partitions[self.random.choice(sorted(self.partitions))]
            said.insert(self.random.randint(0, len(said)), Said("torn", reason="cut_off"))

    def hide(self) -> None:
        """A record can no longer be read; at times it still says whose it is."""
        if (place := self._some()) and (one := self.partitions[place[0]][place[1]]).doc:
            hidden = Said("unreadable", one.doc, reason="bad_created_at")
            if self.random.random() < 0.6:
                hidden = Said("nameless", text=f"{one.doc}{self.random.randint(0, 2)}", reason="missing_id")
            self.partitions[place[0]][place[1]] = hidden

    def nameless(self) -> None:
        said = self.partitions.setdefault(self.random.choice(PARTITIONS), [])
        said.append(Said("nameless", text=f"n{self.random.randint(0, 2)}", reason="missing_id"))

    def clear(self) -> None:
        """What cannot be read goes, all of it in a partition."""
        if self.partitions:
            key = self.random.choice(sorted(self.partitions))
            self.partitions[key] = [o for o in self.partitions[key] if o.what in ("text", "gone", "emptied")]

    def now(self) -> dict[str, list[Said]]:
        return {key: list(said) for key, said in self.partitions.items()}


def newest(partitions: dict[str, list[Said]]) -> dict[str, str]:
    """Where all can be read, the rule is no more than this."""
    best: dict[str, Event] = {}
    for key, said in partitions.items():
        for doc, event in visible(key, said):
            best[doc] = max(best.get(doc, event), event, key=lambda e: e[:3])
    return {doc: event.text for doc, event in best.items() if event.text is not None}
