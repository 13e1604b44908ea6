"""Deals texts into shards, so that a shard's vectors and rows go to few files of the state's tables.

Those have a file for each bucket of teams. The texts are laid out on a line, by bucket and within a bucket by a hash,
and the line is cut into shards: there are not more pairs of a shard and a bucket than shards and buckets together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.state.frames import Frame, Frames
from jobs.state.tables import buckets_of

SHARD_TEXTS = 16_384  # with vectors of 1,024 dimensions 64 MB, however short the texts
_PLACES = 1_000_003  # that a bucket's part of the line is divided into
_LINE = pa.schema([("team_id", pa.string()), ("first", pa.float64()), ("width", pa.float64())])


@dataclass(frozen=True, slots=True)
class Deal:
    """Which of so many shards a text is in.

    ``line`` has for each team where its bucket begins and how wide it is, in shards.
    """

    texts: int
    tokens: int
    shards: int
    line: pa.Table

    def shard_of(self, frames: Frames, texts: Frame) -> Frame:
        """Texts (at least team_id and content_hash, of known teams) with the column ``shard``, a number as a string.

        Within a bucket by their hash, so that each of its shards has the lengths of all.
        """
        place = f"CAST(pmod(xxhash64(t.content_hash), {_PLACES}) AS DOUBLE) / {_PLACES}"
        shard = f"least({self.shards - 1:d}, CAST(floor(d.first + d.width * ({place})) AS BIGINT))"
        return frames.sql(
            f"SELECT t.*, CAST({shard} AS STRING) AS shard FROM {{texts}} t JOIN {{line}} d ON t.team_id = d.team_id",
            texts=texts,
            line=frames.local(_LINE, self.line),
        )


NOTHING = Deal(0, 0, 0, _LINE.empty_table())


def deal(frames: Frames, texts: Frame, shard_tokens: int) -> Deal:
    """Lay out texts (team_id, tokens) in shards of about so many tokens, and of SHARD_TEXTS at most, about."""
    counted = frames.collect(
        frames.sql(
            "SELECT team_id, CAST(count(*) AS BIGINT) AS texts, CAST(sum(tokens) AS BIGINT) AS tokens "
            "FROM {texts} GROUP BY team_id",
            texts=texts,
        )
    )
    buckets, of_team = np.unique(buckets_of(counted["team_id"]).to_numpy(zero_copy_only=False), return_inverse=True)
    tokens, number = (np.bincount(of_team, counted[name].to_numpy(), len(buckets)) for name in ("tokens", "texts"))
    width = np.maximum(tokens / shard_tokens, number / SHARD_TEXTS)
    shards = max(1, math.ceil(width.sum()))
    width *= shards / width.sum()
    first = np.cumsum(width) - width
    line = pa.Table.from_arrays([counted["team_id"], pa.array(first[of_team]), pa.array(width[of_team])], schema=_LINE)
    return Deal(int(number.sum()), int(tokens.sum()), shards, line)
