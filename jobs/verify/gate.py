"""The gate before a cutover: may searches move from the live version to this one? Measures and decides, moves nothing.

Everything is asked of the index itself, through the same calls that searches make: a write that was accepted proves
nothing. What is exact is computed from the stored vectors, in one pass and bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding.records import Metric
from indexers.base import SearchRequest
from jobs.bodies import run as bodies
from jobs.plan.actions import within
from jobs.relevance.gate import Drop, relevance_drop
from jobs.scope import Scope
from jobs.state.frames import Frame, Frames
from jobs.state.vector_column import unpack
from jobs.verify.compare import compare

if TYPE_CHECKING:
    from indexers.base import Hit, Index
    from jobs.pipeline import Pipeline
    from jobs.relevance.golden import GoldenSet

K = 10
# Scores of one pair, computed by us and by an engine, differ by far less of them; copies of a text have the same.
SCORE_ERROR = 1e-4
_TEAM = pa.schema([("team_id", pa.string())])
_EXACT = pa.schema([("number", pa.int32()), ("channel", pa.bool_()), ("scores", pa.list_(pa.float32()))])


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the index: ``value`` against ``limit``, and what was counted, in words."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks, and for a new model how its answers differ from those of the live version."""

    checks: list[Check]
    drift: bodies.Drift | None = None

    @property
    def passed(self) -> bool:
        """Whether the alias may move."""
        return all(check.passed for check in self.checks)

    def body(self) -> bodies.Gate:
        """For the report."""
        checks = tuple(bodies.GateCheck(**asdict(check)) for check in self.checks)
        return bodies.Gate(passed=self.passed, checks=checks, drift=self.drift)


@dataclass(frozen=True, slots=True)
class Query:
    """A vector to search with as a team, and the chunk and channel it is of; ``foreign`` if they are another team's."""

    number: int
    team_id: str
    channel_id: str
    chunk_id: str
    foreign: bool
    vector: npt.NDArray[np.float32]


def examine(
    pipeline: Pipeline, version: str, live: str | None, scope: Scope, *, run_id: str, golden: GoldenSet | None = None
) -> Verdict:
    """Examine a built version, with the questions of ``golden`` too where it is given.

    The caller holds the lease, so that nothing changes under it.
    """
    settings, index = pipeline.config.gate, pipeline.index()
    index.wait_until_indexed(version)
    frames, state = pipeline.frames(whole=True), pipeline.state
    target = pipeline.target(version, run_id)
    found, _ = compare(frames, target, index, scope, sample=settings.vectors)
    wrong = found.counts["vector"]
    checks = [
        Check(
            "coverage",
            found.total == wrong,
            found.total - wrong,
            0,
            ", ".join(f"{n:,} {kind}" for kind, n in found.counts.items() if n and kind != "vector")
            or f"{found.checked:,} keys agree",
        ),
        Check("vectors", not wrong, wrong, 0, f"{wrong:,} of {found.sampled:,} compared are not the stored ones"),
    ]
    rows = frames.sql(
        """
        WITH stored AS (SELECT team_id, content_hash, first(vector) AS vector FROM {vectors}
            GROUP BY team_id, content_hash)
        SELECT c.team_id, c.channel_id, c.chunk_id, s.vector FROM {chunks} c
        JOIN stored s ON c.team_id = s.team_id AND c.content_hash = s.content_hash
        """,
        chunks=within(frames, frames.table(state, "chunks"), scope),
        vectors=frames.table(state, "vectors", {"space_id": pipeline.space_id}),
    )
    queries = choose_queries(frames, rows, teams=settings.teams, each=settings.queries)
    exact = exact_scores(frames, rows, queries, pipeline.space.metric)
    checks += ask(index, version, queries, exact, settings.min_recall)
    if golden is not None:
        checks.append(relevance(relevance_drop(pipeline, golden, version, live), settings.max_ndcg_drop))
    drift = None
    if live is not None and live != version and index.space_of(live) != pipeline.space_id:
        drift = compare_answers(index, live, version, [q for q in queries if not q.foreign])
    return Verdict(checks, drift)


def relevance(drop: Drop, most: float) -> Check:
    """The check of nDCG@10 on the golden set; the limit is 0 where there is no figure to compare with."""
    limit = 0.0 if drop.live is None else max(0.0, drop.live - most)
    return Check("nDCG@10", drop.passed, round(drop.new, 4), round(limit, 4), drop.detail)


def choose_queries(frames: Frames, rows: Frame, *, teams: int, each: int) -> list[Query]:
    """Stored vectors of the largest teams as queries, and for each team some of another team's.

    ``rows`` are team_id, channel_id, chunk_id and vector (binary, ``vector_column``).
    """
    sized = frames.sql(
        f"SELECT team_id, count(*) AS rows FROM {{rows}} GROUP BY team_id ORDER BY rows DESC, team_id LIMIT {teams:d}",
        rows=rows,
    )
    counts = {row["team_id"]: row["rows"] for row in frames.collect(sized).to_pylist()}
    largest = sorted(counts, key=lambda team: (-counts[team], team))
    # Only keys go through the window, and the vectors of those that were chosen come after it.
    picked = frames.sql(
        f"""
        WITH placed AS (
            SELECT r.team_id, r.channel_id, r.chunk_id,
                row_number() OVER (PARTITION BY r.team_id ORDER BY xxhash64(r.chunk_id), r.chunk_id) AS place
            FROM {{rows}} r SEMI JOIN {{largest}} l ON r.team_id = l.team_id)
        SELECT p.team_id, p.channel_id, p.chunk_id, p.place, r.vector FROM placed p
        JOIN {{rows}} r ON p.team_id = r.team_id AND p.chunk_id = r.chunk_id WHERE p.place <= {each:d}
        """,
        rows=rows,
        largest=frames.local(_TEAM, [{"team_id": team} for team in largest]),
    )
    found = sorted(frames.collect(picked).to_pylist(), key=lambda r: (largest.index(r["team_id"]), r["place"]))
    asked = [(r["team_id"], r, False) for r in found]
    for team, other in zip(largest, largest[1:] + largest[:1], strict=True):
        if team != other:
            asked += [(team, r, True) for r in found if r["team_id"] == other]
    return [
        Query(n, team, r["channel_id"], r["chunk_id"], foreign, unpack(pa.array([r["vector"]]))[0])
        for n, (team, r, foreign) in enumerate(asked)
    ]


def exact_scores(
    frames: Frames, rows: Frame, queries: list[Query], metric: Metric = "cosine"
) -> dict[tuple[int, bool], list[float]]:
    """The K best scores of each query, best first: over all rows of its team, and (True) over those of its channel.

    ``rows`` are team_id, channel_id and vector (binary).
    """
    by_team: dict[str, list[Query]] = {}
    for query in queries:
        by_team.setdefault(query.team_id, []).append(query)

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            teams = np.asarray(batch["team_id"].to_pylist(), object)
            channels = np.asarray(batch["channel_id"].to_pylist(), object)
            held = unpack(batch["vector"])
            for team in set(teams.tolist()) & set(by_team):
                ours = teams == team
                asked = np.stack([q.vector for q in by_team[team]])
                near = held[ours] @ asked.T if metric == "dot" else _unit(held[ours]) @ _unit(asked).T
                for column, query in enumerate(by_team[team]):
                    inside = channels[ours] == query.channel_id
                    yield pa.RecordBatch.from_pylist(
                        [
                            {"number": query.number, "channel": False, "scores": _best(near[:, column])},
                            {"number": query.number, "channel": True, "scores": _best(near[inside, column])},
                        ],
                        schema=_EXACT,
                    )

    asked = frames.sql(
        "SELECT r.team_id, r.channel_id, r.vector FROM {rows} r SEMI JOIN {teams} t ON r.team_id = t.team_id",
        rows=rows,
        teams=frames.local(_TEAM, [{"team_id": team} for team in by_team]),
    )
    best: dict[tuple[int, bool], list[float]] = {}
    for row in frames.collect(frames.map(asked, score, _EXACT)).to_pylist():
        at = (row["number"], row["channel"])
        best[at] = sorted(best.get(at, []) + row["scores"], reverse=True)[:K]
    return best


def ask(
    index: Index, version: str, queries: list[Query], exact: dict[tuple[int, bool], list[float]], min_recall: float
) -> list[Check]:
    """Search as every team, with and without its channel, and compare with what is exact."""
    asked = leaks = strays = 0
    right, wanted = {False: 0, True: 0}, {False: 0, True: 0}
    for query in queries:
        for channel in (False, True):
            best = exact.get((query.number, channel), [])
            request = SearchRequest(query.team_id, channels=[query.channel_id] if channel else (), k=K)
            hits = index.search(version, query.vector, request)
            asked += 1
            leaks += sum(hit.team_id != query.team_id for hit in hits)
            strays += sum(channel and hit.channel_id != query.channel_id for hit in hits)
            wanted[channel] += len(best)
            right[channel] += min(len(best), _near(hits, best))
    recall = {channel: right[channel] / wanted[channel] if wanted[channel] else 1.0 for channel in (False, True)}
    return [
        Check("tenant filter", not leaks, leaks, 0, f"{leaks:,} hits of other teams in {asked:,} searches"),
        Check("channel filter", not strays, strays, 0, f"{strays:,} hits of other channels in {asked // 2:,} searches"),
        *(
            Check(
                f"recall at {K}" + " in a channel" * channel,
                recall[channel] >= min_recall,
                round(recall[channel], 4),
                min_recall,
                f"{right[channel]:,} of {wanted[channel]:,} nearest rows found",
            )
            for channel in (False, True)
        ),
    ]


def compare_answers(index: Index, live: str, version: str, queries: list[Query]) -> bodies.Drift:
    """How the answers of two spaces differ, asked with each space's own vectors of the same chunks. A report only."""
    before = index.fetch_vectors(live, [q.chunk_id for q in queries])
    overlaps, old_scores, new_scores = [], [], []
    for query in queries:
        if query.chunk_id not in before:
            continue
        old = _others(index.search(live, before[query.chunk_id], SearchRequest(query.team_id, k=K + 1)), query)
        new = _others(index.search(version, query.vector, SearchRequest(query.team_id, k=K + 1)), query)
        if old and new:
            documents = {h.doc_id for h in old}
            overlaps.append(len(documents & {h.doc_id for h in new}) / len(documents))
            old_scores.append(old[0].score)
            new_scores.append(new[0].score)
    if not overlaps:
        return bodies.Drift(queries=0)
    return bodies.Drift(
        queries=len(overlaps),
        overlap_at_10=round(float(np.mean(overlaps)), 4),
        best_score_before=round(float(np.mean(old_scores)), 4),
        best_score_after=round(float(np.mean(new_scores)), 4),
    )


def _others(hits: list[Hit], query: Query) -> list[Hit]:
    return [hit for hit in hits if hit.chunk_id != query.chunk_id][:K]


def _near(hits: list[Hit], best: list[float]) -> int:
    """Different hits that are as near as the last of the best: with copies of a text, any of them will do."""
    scores = {hit.chunk_id: hit.score for hit in hits}
    return sum(score >= best[-1] - SCORE_ERROR * max(1.0, abs(best[-1])) for score in scores.values()) if best else 0


def _best(scores: npt.NDArray[np.float32]) -> list[float]:
    return (
        sorted((float(s) for s in np.partition(scores, -K)[-K:]), reverse=True)
        if len(scores) > K
        else [float(s) for s in scores]
    )


def _unit(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(lengths == 0, 1, lengths), np.float32)
