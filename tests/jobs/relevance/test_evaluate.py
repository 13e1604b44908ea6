"""Evaluations of a real pipeline, whose index and encoder are in this process: figures, verdicts, what is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.errors import ConfigError, EncoderError
from jobs.bodies.evaluation import EvaluateBody
from jobs.cli.render_evaluation import evaluation
from jobs.commands.evaluate import Asked, evaluate
from jobs.commands.reindex import reindex
from jobs.commands.run import run
from jobs.commands.search import search
from jobs.pipeline import Pipeline
from jobs.relevance.gate import Drop, relevance_drop
from jobs.relevance.golden import GoldenSet, Question, read_golden
from jobs.relevance.html import report, write_report
from jobs.scope import Scope
from jobs.search.query_encoder import QueryEncoder
from jobs.search.rerank import Reranking
from jobs.search.searcher import Query
from tests.support.in_process import WatchedIndex, copied_with_index, open_pipeline, without_ray
from tests.support.workspace import START, TEAM, Workspace, check_schema, message

COUNT = 40
SECRETS = [f"secret parcel {n} behind door {n * 7}" for n in range(COUNT)]
LONG = " ".join(f"Sentence {n} of a report that is cut into many chunks." for n in range(400))


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    with without_ray():
        yield


@pytest.fixture(scope="module")
def _indexed_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = Workspace(tmp_path_factory.mktemp("indexed") / "ws", files=False)
    space.day("general", [message(n, text) for n, text in enumerate([*SECRETS, LONG])])
    # A hashed vector is near to that of the same string alone, which the workspace encodes.
    space.config.write_text(space.config.read_text() + '[search]\nmode = "dense"\n')
    with without_ray():
        run(open_pipeline(space.config), Scope())
    return space


@pytest.fixture
def indexed(tmp_path: Path, _indexed_once: Workspace) -> Workspace:
    """A workspace of COUNT messages and a long one, all in the index."""
    return copied_with_index(_indexed_once, tmp_path / "ws")


@pytest.fixture(scope="module")
def _rebuilt_once(tmp_path_factory: pytest.TempPathFactory, _indexed_once: Workspace) -> Workspace:
    space = copied_with_index(_indexed_once, tmp_path_factory.mktemp("rebuilt") / "ws")
    with without_ray():
        reindex(open_pipeline(space.config), Scope(), activate=False)
    return space


@pytest.fixture
def rebuilt(tmp_path: Path, _rebuilt_once: Workspace) -> Workspace:
    """The same, with messages__v2 beside the live version."""
    return copied_with_index(_rebuilt_once, tmp_path / "ws")


def doc(number: int) -> str:
    return f"{TEAM}/m/C1/{START + number}.000100"


def golden(**more: dict[str, int]) -> GoldenSet:
    """Each message asked for in its own words, and some questions more, by their id."""
    asked = [Question(str(n), text, TEAM, ("C1",), {doc(n): 1}) for n, text in enumerate(SECRETS)]
    asked += [Question(name, "other words", TEAM, (), relevant, "more") for name, relevant in more.items()]
    return GoldenSet("golden.jsonl", tuple(asked))


def ask(space: Workspace, of: GoldenSet | None = None, **options: Any) -> EvaluateBody:
    body = evaluate(open_pipeline(space.config), of or golden(), Asked(**options))
    check_schema("evaluate", json.loads(body.to_json()))
    return body


def shuffle_vectors(pipeline: Pipeline, version: str) -> None:
    """Give each row the vector of another: a fault that no count shows."""
    held = pipeline.index()._version(version)  # type: ignore[attr-defined]  # of the exact index
    keys = list(held.vectors)
    moved = np.roll([held.vectors[key] for key in keys], 1, axis=0)
    held.vectors.update(zip(keys, moved, strict=True))
    held.changed()


def test_each_message_is_found_in_its_own_words(indexed: Workspace) -> None:
    body = ask(indexed)
    assert (body.index, body.mode, body.overall.queries) == ("messages__v1", "dense", COUNT)
    assert (body.overall.ndcg, body.overall.recall, body.overall.mrr) == (1.0, 1.0, 1.0)
    assert list(body.modes) == ["dense", "lexical", "hybrid"] and not body.unavailable
    assert body.modes["lexical"].recall > 0.9
    assert body.slices["kind"]["message"].queries == body.slices["age"]["0-7 days"].queries == COUNT
    assert list(body.slices["length"]) == ["4-8 words"] and "category" not in body.slices
    assert sum(group.queries for group in body.slices["language"].values()) == COUNT


def test_questions_that_the_index_cannot_answer_are_counted_apart(indexed: Workspace) -> None:
    body = ask(indexed, golden(gone={doc(999): 1}, half={doc(0): 1, doc(999): 1}, none={doc(1): 0}))
    counted = body.golden
    assert (counted.not_in_index, counted.partly_in_index, counted.without_relevant) == (1, 1, 1)
    assert (counted.questions, body.overall.queries) == (COUNT + 3, COUNT + 1)
    values = dict(zip(body.per_query.ids, body.per_query.modes["dense"].ndcg, strict=True))
    assert values["gone"] is values["none"] is None and values["half"] is not None and values["0"] == 1
    assert body.slices["category"]["more"].queries == 1 and body.slices["category"]["none"].queries == COUNT
    lines = evaluation(body).splitlines()
    assert "1 have no relevant document in the index and are left out; 1 lack some of theirs; 1 name none" in lines[0]


def test_a_set_of_which_nothing_is_in_the_index_is_refused(indexed: Workspace) -> None:
    nothing = GoldenSet("g.jsonl", (Question("1", "secret", TEAM, (), {f"{TEAM}/t/1": 1}),))
    with pytest.raises(ConfigError, match=r"g\.jsonl: no question has a relevant document in messages__v1"):
        ask(indexed, nothing)


def test_chunks_of_one_document_take_one_place(indexed: Workspace) -> None:
    """The long message has more chunks than an answer has places, and all are as near as the one that is looked for."""
    pipeline = open_pipeline(indexed.config)
    index = pipeline.index()
    held = index._version("messages__v1")  # type: ignore[attr-defined]  # of the exact index
    near = held.vectors[f"{doc(3)}#0"]
    chunks = [key for key in held.vectors if key.startswith(f"{doc(COUNT)}#")]
    assert len(chunks) > 10
    held.vectors.update(dict.fromkeys(chunks, near * 2))
    held.changed()
    three = GoldenSet("g", (Question("1", SECRETS[3], TEAM, (), {doc(3): 1}),))
    body = evaluate(pipeline, three, Asked())
    assert body.overall.ndcg in (1.0, pytest.approx(1 / np.log2(3), abs=1e-6)) and body.overall.recall == 1


def test_the_same_answers_are_no_difference_and_shuffled_vectors_are_worse(rebuilt: Workspace, tmp_path: Path) -> None:
    saved = tmp_path / "before.json"
    saved.write_text(ask(rebuilt).to_json())
    same = ask(rebuilt, against=str(saved)).against
    assert same is not None and (same.verdict, same.file, same.index) == (
        "no difference",
        "before.json",
        "messages__v1",
    )
    twin = ask(rebuilt, against="messages__v2").against
    assert twin is not None and (twin.verdict, twin.file, twin.index) == ("no difference", None, "messages__v2")
    shuffle_vectors(open_pipeline(rebuilt.config), "messages__v2")
    body = ask(rebuilt, index="messages__v2", against="messages__v1")
    assert body.against is not None and body.against.verdict == "worse"
    assert body.against.modes["dense"].ndcg.difference == pytest.approx(body.overall.ndcg - 1)
    assert "\nWORSE than messages__v1 in nDCG@10, dense" in evaluation(body)
    better = ask(rebuilt, against="messages__v2").against
    assert better is not None and better.verdict == "better"


def test_a_wrong_query_prompt_is_worse(indexed: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tmp_path / "before.json"
    saved.write_text(ask(indexed).to_json())
    encode = QueryEncoder.encode
    monkeypatch.setattr(QueryEncoder, "encode", lambda self, texts: encode(self, [f"passage: {t}" for t in texts]))
    found = ask(indexed, against=str(saved)).against
    assert found is not None and found.verdict == "worse"


def test_a_question_without_a_vector_finds_nothing_by_vectors(
    indexed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model that knows no token of it: it is one wrong answer, and not the end of the evaluation."""
    encode = QueryEncoder.encode

    def knows_no_zero(encoder: QueryEncoder, texts: Sequence[str]) -> Any:
        vectors = encode(encoder, texts)
        vectors[[text == SECRETS[0] for text in texts]] = np.nan
        return vectors

    monkeypatch.setattr(QueryEncoder, "encode", knows_no_zero)
    body = ask(indexed)
    assert body.overall.recall == pytest.approx(1 - 1 / COUNT) and body.per_query.modes["dense"].ndcg[0] == 0
    assert body.per_query.modes["lexical"].ndcg[0] == 1
    with pytest.raises(EncoderError, match="the query cannot be encoded"):
        search(open_pipeline(indexed.config), Query(SECRETS[0], TEAM))


def test_a_version_that_lost_its_documents_is_worse(indexed: Workspace, tmp_path: Path) -> None:
    """Questions that it cannot answer are in no figure of it, and count against it all the same."""
    saved = tmp_path / "before.json"
    saved.write_text(ask(indexed).to_json())
    indexed.day("general", [message(n, text) for n, text in enumerate(SECRETS[:20])])
    run(open_pipeline(indexed.config), Scope(), allow_mass_delete=True)
    body = ask(indexed, against=str(saved))
    assert body.overall.ndcg == 1 and body.golden.not_in_index == 20
    assert body.against is not None and body.against.verdict == "worse"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "No such file"),
        ("{}", "is no answer of `embedmill evaluate --json`"),
        ('"digest": "0"', "is of another golden set"),
    ],
)
def test_what_cannot_be_compared_with_is_refused(
    content: str | None, fault: str, indexed: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "before.json"
    if content is not None:
        file.write_text(content if content == "{}" else re.sub('"digest": "[^"]*"', content, ask(indexed).to_json()))
    with pytest.raises(ConfigError, match=f"^--against: .*{fault}"):
        ask(indexed, against=str(file))


def without_words(monkeypatch: pytest.MonkeyPatch, *versions: str) -> None:
    """Have these versions be of an engine without BM25."""
    real = WatchedIndex.match

    def match(index: WatchedIndex, version: str | None, *given: Any) -> Any:
        if version in versions:
            raise ConfigError(f"{version} has no BM25")
        return real(index, version, *given)

    monkeypatch.setattr(WatchedIndex, "match", match)
    monkeypatch.setattr(WatchedIndex, "matches_words", lambda index, version: version not in versions)


def test_a_mode_or_a_version_that_is_not_there_is_refused(indexed: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no version 'messages__v7' of the index; there are messages__v1"):
        ask(indexed, index="messages__v7")
    without_words(monkeypatch, "messages__v1")
    with pytest.raises(ConfigError, match="^--mode: messages__v1 cannot be asked in mode lexical: .* no BM25"):
        ask(indexed, mode="lexical")
    body = ask(indexed)
    assert set(body.modes) == {"dense", "hybrid"} and body.unavailable == {"lexical": "messages__v1 has no BM25"}
    assert "lexical was not measured: messages__v1 has no BM25" in evaluation(body)


class _Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]
        self.refers += [tag] if tag in ("script", "link", "img", "iframe") else []

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"


def test_words_are_nowhere_unless_they_are_asked_for(indexed: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    quiet, open_ = ask(indexed, k=20), ask(indexed, text=True)
    write_report(quiet, file)
    page = _Page(file.read_text())
    assert not page.refers and "url(" not in file.read_text() and "Worst questions" in page.words
    assert file.stat().st_mode & 0o077 == 0
    for said in (quiet.to_json(), evaluation(quiet), file.read_text()):
        assert "secret" not in said
    assert SECRETS[0] in open_.to_json() and SECRETS[0] in report(open_)
    assert quiet.overall.recall_at == {"20": 1.0} and "at 20" in page.words


def test_a_report_shows_words_as_words(indexed: Workspace) -> None:
    of = GoldenSet("<g>", (Question("<1>", "<b>bold</b>", TEAM, (), {doc(0): 1}),))
    page = report(ask(indexed, of, text=True))
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold" not in page and "&lt;g&gt;" in page and "<1>" not in page


def gated(space: Workspace, questions: GoldenSet, *more: str) -> None:
    """Put the questions into a file that [gate] names."""
    rows = [{"id": q.id, "query": q.query, "team": q.team, "relevant": dict(q.relevant)} for q in questions.questions]
    (space.root / "golden.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = ["[gate]", 'golden = "golden.jsonl"', *more]
    space.config.write_text("\n".join([space.config.read_text(), *lines, ""]))


def relevance_of(body: Any) -> Any:
    [check] = [check for check in body.gate.checks if check.name == "nDCG@10"]
    return check


def drop(space: Workspace, *, live: str | None = "messages__v1") -> Drop:
    return relevance_drop(open_pipeline(space.config), golden(), "messages__v2", live)


def test_the_gate_lets_a_version_through_that_answers_as_well(rebuilt: Workspace) -> None:
    found = drop(rebuilt)
    assert (found.passed, found.new, found.live, found.questions) == (True, 1.0, 1.0, COUNT)
    first = drop(rebuilt, live=None)
    assert first.passed and first.live is None and "no version is live yet" in first.detail


def test_the_gate_refuses_shuffled_vectors_by_the_configured_bound(rebuilt: Workspace) -> None:
    shuffle_vectors(open_pipeline(rebuilt.config), "messages__v2")
    found = drop(rebuilt)
    assert not found.passed and found.live == 1 and found.new < 0.9
    gated(rebuilt, golden(), "max_ndcg_drop = 1.0")
    assert drop(rebuilt).passed


def test_a_live_version_without_the_mode_is_asked_as_its_users_ask_it(
    rebuilt: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt.config.write_text(rebuilt.config.read_text().replace('mode = "dense"', 'mode = "lexical"'))
    without_words(monkeypatch, "messages__v1")
    found = drop(rebuilt)
    assert found.live == 1 and "questions (lexical, and dense there)" in found.detail
    without_words(monkeypatch, "messages__v2")
    refused = drop(rebuilt)
    assert (refused.passed, refused.detail) == (False, "messages__v2 cannot be asked: messages__v2 has no BM25")


def test_a_reindex_that_answers_worse_is_refused_with_both_figures(indexed: Workspace) -> None:
    """Two documents are gone from the source: no mass delete, and no fault of the build."""
    gated(indexed, golden())
    left = [*enumerate(SECRETS[:38]), (COUNT, LONG)]
    indexed.day("general", [message(n, text) for n, text in left])
    built = reindex(open_pipeline(indexed.config), Scope(), allow_mass_delete=True)
    check = relevance_of(built)
    assert not built.activated and not built.gate.passed and built.index == "messages__v2"
    assert (check.passed, check.value, check.limit) == (False, 0.95, 0.99)
    assert f"95.0 % in messages__v2, 100.0 % in messages__v1 over {COUNT} questions (dense)" in check.detail
    assert "secret" not in built.to_json() and open_pipeline(indexed.config).live() == "messages__v1"


def test_another_cut_is_compared_and_another_model_that_is_gone_is_not(indexed: Workspace) -> None:
    gated(indexed, golden())
    original = indexed.config.read_text()
    indexed.config.write_text(original.replace("[model]\n", "[model]\nmax_tokens = 32\n"))
    built = reindex(open_pipeline(indexed.config), Scope(), activate=False)
    assert built.gate.passed and "100.0 % in messages__v1" in relevance_of(built).detail, (
        "the same model in another space"
    )
    marker = indexed.root / "state" / "embedmill.json"
    state = json.loads(marker.read_text())
    old = next(space for space in state["spaces"] if space != built.space_id)
    state["spaces"][old] |= {"model": "no-such-model", "encoder": "0"}
    marker.write_text(json.dumps(state))
    refused = reindex(open_pipeline(indexed.config), Scope())
    check = relevance_of(refused)
    assert not refused.activated and not check.passed and check.value == 1.0
    assert "messages__v1 cannot be asked: space" in check.detail and "leave gate.golden out" in check.detail


def test_a_golden_set_that_cannot_be_read_ends_a_reindex_before_any_work(indexed: Workspace) -> None:
    gated(indexed, golden())
    (indexed.root / "golden.jsonl").write_text("{}")
    pipeline = open_pipeline(indexed.config)
    with pytest.raises(ConfigError, match=r"golden\.jsonl: line 1: "):
        reindex(pipeline, Scope())
    assert pipeline.index().versions() == ["messages__v1"]


def test_a_golden_set_of_locomo_is_read(shared_data: Path) -> None:
    found = read_golden(shared_data / "chat" / "locomo" / "questions.jsonl")
    assert len(found.questions) == 1977 and {q.category for q in found.questions} == set("12345")


class _Lengths:
    """A reranker that puts the longest text first, or fails."""

    name = "lengths"

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails

    def scores(self, query: str, texts: Any, seconds: float | None = None) -> Any:
        from embedding.rerankers.base import NotReranked

        self.fails -= 1
        if self.fails >= 0:
            raise NotReranked("HTTP 503")
        return np.array([len(text) for text in texts], np.float64)

    def close(self) -> None:
        pass


def test_the_first_hits_are_reordered_and_the_others_follow(
    indexed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = search(open_pipeline(indexed.config), Query(SECRETS[0], TEAM, k=10))
    assert plain.reranked is None and plain.hits[0].doc_id == doc(0)
    monkeypatch.setattr("jobs.search.searcher.open_reranking", lambda config: Reranking(_Lengths(), 5))
    found = search(open_pipeline(indexed.config), Query(SECRETS[0], TEAM, k=10))
    assert found.reranked is True and found.rerank_reason is None
    lengths = [len(hit.text) for hit in found.hits[:5]]
    assert lengths == sorted(lengths, reverse=True) and found.hits[5:] == plain.hits[5:]
    assert {hit.chunk_id for hit in found.hits} == {hit.chunk_id for hit in plain.hits}
    short = search(open_pipeline(indexed.config), Query(SECRETS[0], TEAM, k=1))
    assert len(short.hits[0].text) == max(lengths), "more are read than are asked for"
    assert search(open_pipeline(indexed.config), Query(SECRETS[0], TEAM), rerank=False).hits == plain.hits


def test_a_reranker_that_fails_leaves_the_order_and_says_so(
    indexed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = search(open_pipeline(indexed.config), Query(SECRETS[0], TEAM))
    monkeypatch.setattr("jobs.search.searcher.open_reranking", lambda config: Reranking(_Lengths(99), 5))
    found = search(open_pipeline(indexed.config), Query(SECRETS[0], TEAM))
    assert (found.hits, found.reranked, found.rerank_reason) == (plain.hits, False, "HTTP 503")
    check_schema("search", json.loads(found.to_json()))
    body = ask(indexed, mode="dense")
    assert body.rerank is not None and (body.rerank.asked, body.rerank.failed) == (COUNT, COUNT)
    assert body.overall.ndcg == 1 and "40 answers reranked by lengths, 40 of them not: HTTP 503" in evaluation(body)


def test_a_reranker_is_not_asked_again_after_three_failures() -> None:
    """A service that is down would cost its time limit for each of a thousand questions."""
    lengths = _Lengths(fails=3)
    reranking = Reranking(lengths, 5)
    hits: Any = [type("Hit", (), {"text": "words"})()]  # nothing else is read of one
    reasons = [reranking.apply("q", hits).reason for _ in range(4)]
    assert reasons[:3] == ["HTTP 503"] * 3 and reasons[3] == "not asked again after 3 failures in a row: HTTP 503"
    again = Reranking(_Lengths(fails=2), 5)
    assert [again.apply("q", hits).reason for _ in range(4)] == ["HTTP 503", "HTTP 503", "", ""]
