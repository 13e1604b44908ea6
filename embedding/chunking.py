"""Owns where a document's text is cut into chunks that the model reads whole.

Pure: text in, spans out. It must never drop a character, never let a chunk pass the model's limit, and never let a
cut depend on where in the text it lies: a cut depends on the words around it alone, so that an edit re-embeds the
chunks that it touches and not all that follow.

How: every heading, paragraph, line, sentence and word end is a candidate cut with a priority (its class, then a hash
of the characters around it). A segment that does not fit is cut at its best candidate, and so are its halves. Cuts of
the halves do not look at one another, which is what keeps an edit local.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from embedding.errors import ConfigError
from embedding.text.borders import CLASS_SHIFT, WORD, Borders, every_border, find_borders
from embedding.tokens.counter import open_counter
from embedding.tokens.slices import Ints

CHUNKER_VERSION = "1"

CONTEXT_TOKENS = 32  # of what is put before a chunk's text, at most

_MIN_BUDGET = 8  # tokens of a chunk's own text; with less, one odd character could fill a chunk
_MIN_CHARS = 16


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """How large a chunk may be. ``max_tokens`` counts the special tokens; ``overlap_tokens`` is part of it."""

    max_tokens: int = 256
    overlap_tokens: int = 24
    max_chars: int = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """``text[start:end]`` is a chunk; ``tokens`` is what the model's tokenizer makes of it alone, specials included."""

    start: int
    end: int
    tokens: int


@dataclass(slots=True)
class _Piece:
    """A chunk while it is checked: its own text is ``start:end``, with the overlap it is ``lead:end``."""

    lead: int
    start: int
    end: int
    tokens: int = 0


class Chunker:
    """Cuts texts into chunks of one model."""

    def __init__(self, tokenizer_file: Path | str, limits: ChunkLimits) -> None:
        """Raises ConfigError where the limits leave no room for text."""
        self._file = Path(tokenizer_file)
        self._counter = open_counter(self._file)
        self._bound(limits)

    def _bound(self, limits: ChunkLimits) -> None:
        self.limits = limits
        self._budget = limits.max_tokens - self._counter.added - limits.overlap_tokens
        # 16 characters a token is far more than prose has; the quarter keeps small limits usable
        self._overlap_chars = min(limits.max_chars // 4, limits.overlap_tokens * 16)
        self._char_budget = limits.max_chars - self._overlap_chars
        if limits.overlap_tokens < 0 or self._budget < _MIN_BUDGET:
            raise ConfigError(
                f"model.overlap_tokens: {limits.overlap_tokens} leaves {self._budget} of the model's "
                f"{limits.max_tokens} tokens for text ({self._counter.added} are special); "
                f"at least {_MIN_BUDGET} are needed"
            )
        if limits.max_chars < _MIN_CHARS:
            raise ConfigError(f"max_chars: {limits.max_chars} is below {_MIN_CHARS}")
        self._min_tokens = self._budget // 4
        self._min_chars = self._char_budget // 4

    @property
    def added(self) -> int:
        """Tokens that every text gets beside its own."""
        return self._counter.added

    def narrowed(self, tokens: int) -> Chunker:
        """The chunker of texts that have so many tokens of context before each chunk. ConfigError for no room left."""
        if not tokens:
            return self
        chunker = copy.copy(self)
        chunker._bound(replace(self.limits, max_tokens=self.limits.max_tokens - tokens))
        return chunker

    def fit_context(self, context: str) -> tuple[str, int]:
        """What stands before a text, cut to a quarter of the limit and at most CONTEXT_TOKENS; and its tokens."""
        most = min(CONTEXT_TOKENS, self.limits.max_tokens // 4)
        starts = self._counter.starts([context])[0]
        if len(starts) <= most:
            return context, len(starts)
        return context[: int(starts[most])], most

    def fingerprint(self) -> str:
        """Digest of all that decides the cuts: this algorithm, the limits and the tokenizer."""
        tokenizer = hashlib.sha256(self._file.read_bytes()).hexdigest()
        payload = json.dumps([CHUNKER_VERSION, asdict(self.limits), tokenizer], sort_keys=True)
        return hashlib.blake2b(payload.encode(), digest_size=12).hexdigest()

    def split_batch(self, texts: Sequence[str]) -> list[list[Span]]:
        """Spans of each text, in order, covering it from 0 to its end; none for an empty text.

        Each span starts at or before the end of the one before it, and after that one's start.
        """
        max_chars, max_tokens = self.limits.max_chars, self.limits.max_tokens
        # What is too long in characters is cut anyway, so it is not encoded here.
        short = iter(self._counter.count([text for text in texts if 0 < len(text) <= max_chars]))
        spans: list[list[Span]] = []
        long: list[int] = []
        for row, text in enumerate(texts):
            length = len(text)
            if 0 < length <= max_chars and (tokens := next(short)) <= max_tokens:
                spans.append([Span(0, length, tokens)])
            else:
                spans.append([])
                if length:
                    long.append(row)
        if long:
            for row, cut in zip(long, self._cut([texts[row] for row in long]), strict=True):
                spans[row] = cut
        return spans

    def _cut(self, texts: list[str]) -> list[list[Span]]:
        """Leaves with overlap, then checked by encoding them; whatever is too long is cut again until none is."""
        documents = list(map(self._pieces, texts, self._counter.starts(texts)))
        unchecked = [(row, piece) for row, pieces in enumerate(documents) for piece in pieces]
        while unchecked:
            counts = self._counter.count([texts[row][piece.lead : piece.end] for row, piece in unchecked])
            recheck: list[tuple[int, _Piece]] = []
            halve: dict[int, list[_Piece]] = {}
            for (row, piece), tokens in zip(unchecked, counts, strict=True):
                piece.tokens = tokens
                if tokens <= self.limits.max_tokens or piece.end - piece.lead == 1:
                    continue
                if piece.lead < piece.start:
                    piece.lead = piece.start
                    recheck.append((row, piece))
                else:
                    halve.setdefault(row, []).append(piece)
            for row, pieces in halve.items():
                documents[row], changed = self._halve(texts[row], documents[row], {id(piece) for piece in pieces})
                recheck += [(row, piece) for piece in changed]
            unchecked = recheck
        return [[Span(piece.lead, piece.end, piece.tokens) for piece in pieces] for pieces in documents]

    def _halve(self, text: str, pieces: list[_Piece], oversized: set[int]) -> tuple[list[_Piece], list[_Piece]]:
        """Cut the oversized pieces again, each on its own text, and say which pieces are new or changed."""
        parts = [text[piece.start : piece.end] for piece in pieces if id(piece) in oversized]
        starts = iter(self._counter.starts(parts))
        texts = iter(parts)
        result: list[_Piece] = []
        changed: list[_Piece] = []
        for piece in pieces:
            if id(piece) in oversized:
                new = [
                    _Piece(piece.start + leaf.lead, piece.start + leaf.start, piece.start + leaf.end)
                    for leaf in self._pieces(next(texts), next(starts))
                ]
                result += new
                changed += new
                continue
            if result and piece.lead < piece.start and piece.lead <= result[-1].start:
                piece.lead = piece.start  # the piece it overlapped is now shorter than the overlap
                changed.append(piece)
            result.append(piece)
        return result, changed

    def _pieces(self, text: str, starts: Ints) -> list[_Piece]:
        borders = find_borders(text, starts)
        leaves = self._leaves(text, starts, borders)
        pieces = [_Piece(0, *leaves[0])]
        for previous, leaf in zip(leaves, leaves[1:], strict=False):
            pieces.append(_Piece(self._overlap(borders, starts, *previous), *leaf))
        return pieces

    def _overlap(self, borders: Borders, starts: Ints, start: int, end: int) -> int:
        """Where the overlap into the leaf ``start:end`` begins; ``end`` for none. Looks at this leaf alone."""
        if not self.limits.overlap_tokens:
            return end
        first, last = np.searchsorted(starts, (start, end))
        low = int(np.searchsorted(borders.position, max(start + 1, end - self._overlap_chars)))
        low = max(low, int(np.searchsorted(borders.token, max(first + 1, last - self.limits.overlap_tokens))))
        # at least one token: an overlap of white space says nothing
        high = min(int(np.searchsorted(borders.position, end)), int(np.searchsorted(borders.token, last)))
        if low >= high:
            return end
        sentences = np.flatnonzero(borders.priority[low:high] < np.uint64(WORD << CLASS_SHIFT))
        return int(borders.position[low + (int(sentences[0]) if sentences.size else 0)])

    def _leaves(self, text: str, starts: Ints, borders: Borders) -> list[tuple[int, int]]:
        """Cut until everything fits. A stack in place of recursion: depth is bounded by content only."""
        leaves: list[tuple[int, int]] = []
        stack = [(0, len(text), borders, False)]
        while stack:
            start, end, borders, every = stack.pop()
            first, last = (int(at) for at in np.searchsorted(starts, (start, end)))
            if self._fits(last - first, end - start) or end - start == 1:
                leaves.append((start, end))
                continue
            cuts = self._choose(borders, start, end, first, last)
            if not cuts and not every:
                # A word too long for a chunk. From here down any character may be a candidate.
                borders, every = every_border(text, starts, borders, start, end), True
                cuts = self._choose(borders, start, end, first, last)
            if not cuts:
                cuts = [(start + end) // 2]  # one grapheme, or one token, too long for a chunk
            edges = [start, *cuts, end]
            stack += [(edges[i], edges[i + 1], borders, every) for i in range(len(edges) - 2, -1, -1)]
        return leaves

    def _fits(self, tokens: int, chars: int) -> bool:
        return tokens <= self._budget and chars <= self._char_budget

    def _choose(self, borders: Borders, start: int, end: int, first: int, last: int) -> list[int]:
        """The best candidates of ``start:end`` (tokens ``first:last``); more than one only where they are equals."""
        low, high = self._zone(borders, start, end, first, last)
        if low >= high:
            return []
        priority = borders.priority[low:high]
        best = priority.min()
        if (last - first) < 2 * self._budget and (end - start) < 2 * self._char_budget:
            # Two chunks can hold this: among candidates of the best class prefer one that makes it two, not three.
            inner = slice(
                max(
                    low,
                    int(np.searchsorted(borders.token, last - self._budget)),
                    int(np.searchsorted(borders.position, end - self._char_budget)),
                ),
                min(
                    high,
                    int(np.searchsorted(borders.token, first + self._budget, side="right")),
                    int(np.searchsorted(borders.position, start + self._char_budget, side="right")),
                ),
            )
            if inner.start < inner.stop:
                inner_best = borders.priority[inner].min()
                if inner_best >> np.uint64(CLASS_SHIFT) == best >> np.uint64(CLASS_SHIFT):
                    low, high, best = inner.start, inner.stop, inner_best
        ties = low + np.flatnonzero(borders.priority[low:high] == best)
        if ties.size == 1:
            return [int(borders.position[ties[0]])]
        # The same words again and again. Fill chunks from the left, all at once: one at a time would be quadratic.
        position, token = borders.position[ties], borders.token[ties]
        equals = Borders(position, borders.priority[ties], token)
        cuts: list[int] = []
        while not self._fits(last - first, end - start):
            low, high = self._zone(equals, start, end, first, last)
            if low >= high:
                break
            full = min(
                int(np.searchsorted(position, start + self._char_budget, side="right")),
                int(np.searchsorted(token, first + self._budget, side="right")),
                high,
            )
            at = max(low, full - 1)
            start, first = int(position[at]), int(token[at])
            cuts.append(start)
        return cuts

    def _zone(self, borders: Borders, start: int, end: int, first: int, last: int) -> tuple[int, int]:
        """Range of candidates that leave enough on either side, be it in tokens or in characters."""
        low = min(
            int(np.searchsorted(borders.token, first + self._min_tokens)),
            int(np.searchsorted(borders.position, start + self._min_chars)),
        )
        high = max(
            int(np.searchsorted(borders.token, last - self._min_tokens, side="right")),
            int(np.searchsorted(borders.position, end - self._min_chars, side="right")),
        )
        # never an edge, nor a candidate outside the segment where all tokens begin at one place
        low = max(low, int(np.searchsorted(borders.position, start, side="right")))
        return low, min(high, int(np.searchsorted(borders.position, end)))
