"""The body of `evaluate`: figures of a golden set, by mode and slice, and how they compare with an earlier answer."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from jobs.bodies.base import Absent, Body

Mode = Literal["dense", "lexical", "hybrid"]
Outcome = Literal["better", "worse", "no difference"]
Interval = tuple[float, float]


class _Metrics(Body):
    """Base of what is known by metric: its names in JSON are those of the field, such as ``ndcg@10``."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)


class Intervals(_Metrics):
    """Low and high of each mean, 95 % by bootstrap over the questions."""

    ndcg: Interval = Field(validation_alias="ndcg@10", serialization_alias="ndcg@10")
    recall: Interval = Field(validation_alias="recall@10", serialization_alias="recall@10")
    mrr: Interval = Field(validation_alias="mrr@10", serialization_alias="mrr@10")


class Scores(_Metrics):
    """Means over ``queries`` questions, 0 to 1. ``recall_at`` is by k, where another than 10 was asked for."""

    queries: int
    ndcg: float = Field(validation_alias="ndcg@10", serialization_alias="ndcg@10")
    recall: float = Field(validation_alias="recall@10", serialization_alias="recall@10")
    mrr: float = Field(validation_alias="mrr@10", serialization_alias="mrr@10")
    recall_at: Absent[dict[str, float]] = None
    intervals: Absent[Intervals] = None


class Golden(Body):
    """The golden set. ``weak``: clicks say what is relevant.

    Counts of questions: ``not_in_index`` have no relevant document in the index and are in no figure,
    ``partly_in_index`` lack some, ``without_relevant`` name none and are in no figure either.
    """

    name: str
    digest: str
    questions: int
    weak: bool
    not_in_index: int
    partly_in_index: int
    without_relevant: int


class DifferenceBody(Body):
    """One metric of the same questions, before and after; ``interval`` (99 %) and ``p_value`` are of the difference."""

    queries: int
    before: float
    after: float
    difference: float
    interval: Interval
    p_value: float
    verdict: Outcome


class Differences(_Metrics):
    """The differences by metric."""

    ndcg: DifferenceBody = Field(validation_alias="ndcg@10", serialization_alias="ndcg@10")
    recall: DifferenceBody = Field(validation_alias="recall@10", serialization_alias="recall@10")
    mrr: DifferenceBody = Field(validation_alias="mrr@10", serialization_alias="mrr@10")


class Against(Body):
    """What this answer is compared with. ``verdict`` is of nDCG@10 in the configured mode: "better" is this answer."""

    index: str
    space_id: str
    file: Absent[str] = None
    mode: Mode
    verdict: Outcome
    modes: dict[str, Differences]


class RerankBody(Body):
    """The reranker: how many answers it was ``asked`` to order, how often it ``failed``, and the last reason."""

    name: str
    asked: int
    failed: int
    reason: Absent[str] = None


class PerQuery(_Metrics):
    """One value a question, in the order of ``PerQueries.ids``; null where the question is in no figure."""

    ndcg: tuple[float | None, ...] = Field(validation_alias="ndcg@10", serialization_alias="ndcg@10")
    recall: tuple[float | None, ...] = Field(validation_alias="recall@10", serialization_alias="recall@10")
    mrr: tuple[float | None, ...] = Field(validation_alias="mrr@10", serialization_alias="mrr@10")


class PerQueries(Body):
    """Every question by its id (its line, where the file has none). ``texts`` are there where they were asked for."""

    ids: tuple[str, ...]
    texts: Absent[tuple[str, ...]] = None
    modes: dict[str, PerQuery]


class EvaluateBody(Body):
    """`evaluate`: ``overall`` and ``slices`` are of ``mode``; ``unavailable`` says why another is not there."""

    index: str
    space_id: str
    mode: Mode
    golden: Golden
    overall: Scores
    modes: dict[str, Scores]
    unavailable: dict[str, str]
    slices: dict[str, dict[str, Scores]]
    rerank: Absent[RerankBody] = None
    against: Absent[Against] = None
    per_query: PerQueries
