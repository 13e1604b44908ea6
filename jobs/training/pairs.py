"""Pairs to train on: a question and what answers it, from a file or from what the state knows of its documents.

Texts are as they are encoded, without a template. Nothing of them may reach a log, an error or a file name.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from embedding.errors import ConfigError
from embedding.records import Removed
from jobs.registry.manifest import Seen
from jobs.relevance.golden import json_lines
from jobs.state.purge_rules import purge_rules

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

_COLUMNS = [
    "doc_id",
    "chunk_no",
    "team_id",
    "channel_id",
    "kind",
    "created_at",
    "text",
    "author_id",
    "thread_id",
    "title",
    "visibility",
    "version",
]
_REPLIES = 3  # of a thread: what comes late in a long one is about something else
_LEAST_LETTERS = 12  # of both texts: "thanks" answers everything


@dataclass(frozen=True, slots=True)
class Pair:
    """``anchor`` asks, ``positive`` answers, ``negatives`` do not.

    ``group`` is the thread or document that it is of, ``at`` when that began (µs); ``seen`` are its documents.
    """

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    group: str = ""
    at: int = 0
    seen: tuple[Seen, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs to train on, and later ones to measure by, of other groups and without a text in common."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]


def read_pairs(path: Path) -> list[Pair]:
    """Read a JSONL file of ``anchor``, ``positive`` and, where there is one, ``negative`` (a text or a list of them).

    Raises ConfigError naming the line and the field, and never showing a text.
    """
    found = []
    for number, line in json_lines(path, "give a JSONL file of anchor and positive"):
        values = [line.get(name) for name in ("anchor", "positive")]
        for name, value in zip(("anchor", "positive"), values, strict=True):
            if not _is_text(value):
                raise ConfigError(f"{path}: line {number}: {name}: give a text")
        negative = line.get("negative", [])
        negatives = [negative] if isinstance(negative, str) else negative
        if not isinstance(negatives, list) or not all(map(_is_text, negatives)):
            raise ConfigError(f"{path}: line {number}: negative: give a text or a list of texts, or leave it out")
        anchor, positive = map(str, values)
        found.append(Pair(anchor, positive, tuple(negatives), group=anchor))
    if not found:
        raise ConfigError(f"{path}: no pair in it; give a JSON object a line, with anchor and positive")
    return found


def _is_text(value: object) -> bool:
    """Whether it has letters, all of which can be written: half of a pair of surrogates cannot."""
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\ud800-\udfff]", value)


def state_pairs(pipeline: Pipeline, teams: Sequence[str], *, private: bool) -> list[Pair]:
    """Pairs of the teams that take part: question and reply of threads, title and text of documents.

    What is not public is left out unless ``private``, and what a purge is about to remove. Reads the rows of these
    teams alone.
    """
    found: list[Pair] = []
    for team in teams:
        table = pipeline.state.dataset("chunks", [("team_id", "in", [team])]).to_table(_COLUMNS, _wanted(team, private))
        rules = [rule for rule in purge_rules(pipeline.state) if rule.team_id == team]  # after the rows
        ordered = table.sort_by([("created_at", "ascending"), ("doc_id", "ascending")]).to_pylist()
        rows = [row for row in ordered if not any(rule.covers(_removed(row)) for rule in rules)]
        found += _of_threads(rows)
        found += _of_titles(rows)
    return found


def _removed(row: Mapping[str, Any]) -> Removed:
    """A row as what rules of purges are asked about."""
    return Removed(row["doc_id"], row["team_id"], row["channel_id"], row["kind"], row["created_at"], row["version"], "")


def _wanted(team: str, private: bool) -> pc.Expression:
    wanted = (pc.field("team_id") == team) & (pc.field("chunk_no") == 0)
    return wanted if private else wanted & (pc.field("visibility") == "public")


def _of_threads(rows: Iterable[Mapping[str, Any]]) -> Iterator[Pair]:
    """A thread's first message and the replies of others, one pair each."""
    first, replies = {}, defaultdict(list)
    for row in rows:
        if row["kind"] != "message":
            continue
        if row["thread_id"] in ("", row["doc_id"]):
            first[row["doc_id"]] = row
        else:
            replies[row["thread_id"]].append(row)
    for thread, answers in replies.items():
        asked = first.get(thread)
        if asked is None or len(asked["text"]) < _LEAST_LETTERS:
            continue
        others = [
            one for one in answers if one["author_id"] != asked["author_id"] and len(one["text"]) >= _LEAST_LETTERS
        ]
        for answer in others[:_REPLIES]:
            seen = (_seen(asked), _seen(answer))
            yield Pair(asked["text"], answer["text"], (), thread, asked["created_at"], seen)


def _of_titles(rows: Iterable[Mapping[str, Any]]) -> Iterator[Pair]:
    """The title of a file or a row, and its first text."""
    for row in rows:
        if row["kind"] != "message" and row["title"] and min(len(row["title"]), len(row["text"])) >= _LEAST_LETTERS:
            yield Pair(row["title"], row["text"], (), row["doc_id"], row["created_at"], (_seen(row),))


def _seen(row: Mapping[str, Any]) -> Seen:
    return Seen(row["doc_id"], row["team_id"], row["channel_id"], row["created_at"])


def split(pairs: Sequence[Pair], share: float, seed: int) -> Split:
    """Keep the latest ``share`` of the groups to measure by; where no pair has a time, groups by a hash.

    What is trained on has no text in common with what is measured by. Raises ConfigError where one part is empty.
    """
    first: dict[str, int] = {}
    for pair in pairs:
        first[pair.group] = min(pair.at, first.get(pair.group, pair.at))
    order = sorted(first, key=lambda group: (first[group], _hash(group, seed)))
    later = set(order[len(order) - max(1, round(share * len(order))) :])
    held_out = tuple(pair for pair in pairs if pair.group in later)
    texts = {_plain(text) for pair in held_out for text in (pair.anchor, pair.positive)}
    train = tuple(
        replace(pair, negatives=tuple(one for one in pair.negatives if _plain(one) not in texts))
        for pair in pairs
        if pair.group not in later and _plain(pair.anchor) not in texts and _plain(pair.positive) not in texts
    )
    if not train:
        raise ConfigError(
            f"training: {len(pairs)} pairs of {len(order)} threads and documents leave nothing to train on beside what "
            "is held out; it takes more of them"
        )
    return Split(train, held_out)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _hash(text: str, seed: int) -> str:
    return hashlib.blake2b(text.encode(), key=seed.to_bytes(8, "big"), digest_size=16).hexdigest()


def batches(pairs: Sequence[Pair], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Places of pairs, in batches in which no two are of one group or share a text: each would be a false negative.

    The same for the same arguments. The last ones are smaller; a pair that is left over by itself is in none.
    """
    coming = deque(sorted(range(len(pairs)), key=lambda place: _hash(f"{epoch} {place}", seed)))
    done: list[list[int]] = []
    while True:
        batch: list[int] = []
        used: set[str] = set()
        passed: list[int] = []
        while coming and len(batch) < size:
            names = _names(pairs[coming[0]])
            (batch if used.isdisjoint(names) else passed).append(coming.popleft())
            used |= names
        coming.extendleft(reversed(passed))  # first of the next batch
        if len(batch) < 2:
            return done
        done.append(batch)


def _names(pair: Pair) -> set[str]:
    return {f"group {pair.group}", f"text {_plain(pair.anchor)}", f"text {_plain(pair.positive)}"}


def texts_table(pairs: Sequence[Pair]) -> pa.Table:
    """Pairs as a table (anchor, positive, negatives, group, at), for a process of its own."""
    return pa.table(
        {
            "anchor": [pair.anchor for pair in pairs],
            "positive": [pair.positive for pair in pairs],
            "negatives": pa.array([list(pair.negatives) for pair in pairs], pa.list_(pa.string())),
            "group": [pair.group for pair in pairs],
            "at": pa.array([pair.at for pair in pairs], pa.int64()),
        }
    )


def pairs_of(table: pa.Table) -> list[Pair]:
    """What ``texts_table`` made, without the documents."""
    return [
        Pair(row["anchor"], row["positive"], tuple(row["negatives"]), row["group"], row["at"])
        for row in table.to_pylist()
    ]


def negatives_of(pairs: Sequence[Pair], anchors: Any, positives: Any, *, margin: float) -> Iterator[Pair]:
    """Give each pair the hardest text that does not answer it: the nearest one below ``margin`` times its own answer.

    ``anchors`` and ``positives`` are their vectors by the base, shape (pairs, dim), of length 1. A text of the pair's
    own group is never taken, nor one that is nearer: it may answer, too.
    """
    import numpy as np

    groups = np.unique([pair.group for pair in pairs], return_inverse=True)[1]
    own = (anchors * positives).sum(axis=1)
    block = max(1, 20_000_000 // max(1, len(pairs)))
    for start in range(0, len(pairs), block):
        scores = anchors[start : start + block] @ positives.T
        stop = start + len(scores)
        scores[scores >= margin * own[start:stop, None]] = -2
        scores[groups[start:stop, None] == groups[None, :]] = -2
        best = scores.argmax(axis=1)
        for row, place in enumerate(best):
            pair = pairs[start + row]
            taken = (pairs[place].positive,) if scores[row, place] > -2 and not pair.negatives else pair.negatives
            yield Pair(pair.anchor, pair.positive, taken, pair.group, pair.at, pair.seen)
