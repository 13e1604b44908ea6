"""Makes Slack exports of any size whose messages are as long as real ones, and edits a share of them.

Lengths are measured, texts are not: words are drawn from the vocabulary of the default model, so that a message has
exactly as many tokens as was drawn for it. The same count and seed give the same bytes. Knows nothing of embedmill
but where the model lies.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TEAM = "T01"
CHANNELS = 8
USERS = 300
THREADED = 0.24  # share of messages that answer an earlier one, as in the chats below
FIRST_DAY = 1_735_689_600  # 2025-01-01T00:00:00Z
_DAY = 86_400
_WORDS = 12_000
_MARKS = (",", ".", "?", "!", "-", "/")
_MARKED = 0.44  # of the tokens after the first: gives the 1.8 tokens a word of the same chats

# Tokens of a message (default model, without [CLS] and [SEP]) at each percentile: 25,473 messages that people wrote
# in the IRC channel #ubuntu, 2004 to 2016, read as a Slack export without its joins and leaves. Mean 18.4.
PERCENTS = (0, *range(1, 100), 99.5, 99.9, 100)
TOKENS = (
    1,
    1,
    1,
    1,
    2,
    2,
    2,
    2,
    2,
    3,
    3,
    3,
    4,
    4,
    4,
    5,
    5,
    5,
    6,
    6,
    6,
    7,
    7,
    7,
    8,
    8,
    8,
    8,
    9,
    9,
    9,
    9,
    10,
    10,
    10,
    10,
    11,
    11,
    11,
    11,
    12,
    12,
    12,
    13,
    13,
    13,
    13,
    14,
    14,
    14,
    14,
    15,
    15,
    15,
    16,
    16,
    16,
    17,
    17,
    17,
    17,
    18,
    18,
    18,
    19,
    19,
    20,
    20,
    20,
    21,
    21,
    22,
    22,
    23,
    23,
    24,
    24,
    25,
    25,
    26,
    27,
    27,
    28,
    29,
    30,
    31,
    32,
    33,
    35,
    36,
    37,
    39,
    41,
    43,
    46,
    49,
    54,
    60,
    68,
    81,
    95,
    122,
    215,
)


@dataclass(frozen=True, slots=True)
class Export:
    """What was written: enough to know what a run must count."""

    folder: Path
    messages: int
    partitions: int
    distinct: int
    """Different texts among the messages."""


@dataclass(frozen=True, slots=True)
class Edits:
    """What was changed: messages, day files, and texts that no message had before."""

    messages: int
    partitions: int
    texts: int


def words(model: Path) -> list[str]:
    """Whole words of a WordPiece tokenizer, each one token, in the order of its vocabulary: frequent ones first."""
    vocabulary: dict[str, int] = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    plain = [word for word in vocabulary if re.fullmatch("[a-z]{2,}|a|i", word)]
    return sorted(plain, key=vocabulary.__getitem__)[:_WORDS]


class _Writer:
    """Draws texts. Words follow Zipf's law, marks stand close to the word before them."""

    def __init__(self, vocabulary: list[str], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._words = np.array(vocabulary)
        weights = 1.0 / np.arange(1, len(vocabulary) + 1)
        self._odds: npt.NDArray[np.float64] = np.cumsum(weights / weights.sum())

    def texts(self, count: int) -> list[str]:
        lengths = np.rint(np.interp(self.random.random(count) * 100, PERCENTS, TOKENS)).astype(int)
        total = int(lengths.sum())
        places = np.minimum(np.searchsorted(self._odds, self.random.random(total)), len(self._words) - 1)
        drawn = self._words[places]
        marked = self.random.random(total) < _MARKED
        marks = np.array(_MARKS)[self.random.integers(0, len(_MARKS), total)]
        found, start = [], 0
        for length in lengths:
            end = start + length
            text = str(drawn[start])
            for place in range(start + 1, end):
                text += str(marks[place]) if marked[place] else f" {drawn[place]}"
            found.append(text)
            start = end
        return found


def make_texts(count: int, model: Path, *, seed: int) -> list[str]:
    """Texts of so many messages alone."""
    return _Writer(words(model), seed).texts(count)


def make_export(folder: Path, count: int, model: Path, *, seed: int) -> Export:
    """Write an export of ``count`` messages in day files of 500 to 1,000. ``folder`` must not exist."""
    writer = _Writer(words(model), seed)
    folder.mkdir(parents=True)
    users = [{"id": f"U{n:04}", "name": f"user{n}", "profile": {"display_name": f"User {n}"}} for n in range(USERS)]
    (folder / "users.json").write_text(json.dumps(users))
    names = [{"id": f"C{n}", "name": f"channel-{n}"} for n in range(CHANNELS)]
    (folder / "channels.json").write_text(json.dumps(names))
    texts: set[str] = set()
    written = files = 0
    while written < count:
        size = min(int(writer.random.integers(500, 1_001)), count - written)
        day, channel = divmod(files, CHANNELS)
        messages = _day(writer, size, FIRST_DAY + day * _DAY)
        texts.update(message["text"] for message in messages)
        target = folder / f"channel-{channel}"
        target.mkdir(exist_ok=True)
        date = np.datetime64(FIRST_DAY + day * _DAY, "s").astype("datetime64[D]")
        (target / f"{date}.json").write_text(json.dumps(messages))
        written += size
        files += 1
    return Export(folder, written, files, len(texts))


def _day(writer: _Writer, size: int, start: int) -> list[dict[str, Any]]:
    seconds = np.sort(writer.random.choice(_DAY - 60, size, replace=False)) + start
    # A few people write most messages.
    people = np.minimum(writer.random.geometric(0.02, size), USERS) - 1
    answers = writer.random.random(size) < THREADED
    messages: list[dict[str, Any]] = []
    for number, text in enumerate(writer.texts(size)):
        ts = f"{seconds[number]}.000100"
        message = {"type": "message", "user": f"U{people[number]:04}", "text": text, "ts": ts}
        if answers[number] and number:
            parent = messages[int(writer.random.integers(max(0, number - 20), number))]
            message["thread_ts"] = parent.setdefault("thread_ts", parent["ts"])
        messages.append(message)
    return messages


def edit(export: Export, share: float, model: Path, *, seed: int) -> Edits:
    """Give a share of the messages, spread over all day files, new texts that end in words of their own."""
    writer = _Writer(words(model), seed)
    wanted = round(export.messages * share)
    chosen = np.sort(writer.random.choice(export.messages, wanted, replace=False))
    # Digits are in no other text, so none of these is known.
    texts = [f"{text} {number} edited" for number, text in enumerate(writer.texts(wanted))]
    position = edited = files = 0
    for file in sorted(export.folder.glob("channel-*/*.json")):
        messages = json.loads(file.read_text())
        end = edited + int(np.searchsorted(chosen[edited:], position + len(messages)))
        for number in range(edited, end):
            message = messages[chosen[number] - position]
            message["text"] = texts[number]
            message["edited"] = {"user": message["user"], "ts": f"{float(message['ts']) + 3600:.6f}"}
        if end > edited:
            file.write_text(json.dumps(messages))
            files += 1
        edited, position = end, position + len(messages)
    return Edits(edited, files, len(set(texts)))
