"""Fusion: one list of several, by what each says of its hits, and by the conversations that hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from indexers.base import Hit
from jobs.search.fusion import Lists, Weights, fuse, relative

EQUAL = Weights(dense=1.0, lexical=1.0, conversation=1.0)


def row(doc: str, score: float, *, kind: str = "message", channel: str = "C1", number: int = 0) -> Hit:
    return Hit(f"{doc}#{number}", score, "T", channel, "general", kind, doc, "text", 0, "{}")


def conversation(name: str, score: float, messages: Sequence[str]) -> Hit:
    meta = json.dumps({"messages": list(messages)})
    return Hit(f"{name}#0", score, "T", "C1", "general", "thread", name, "text", 0, meta)


def none(keys: Sequence[str]) -> list[Hit]:
    raise AssertionError(f"nothing is to be read, and {keys} were")


def order(hits: Sequence[Hit]) -> list[str]:
    return [hit.doc_id for hit in hits]


def test_scores_are_relative_to_the_best_and_the_worst_of_a_full_list() -> None:
    hits = [row("a", 9.0), row("b", 5.0), row("c", 1.0)]
    assert relative(hits, full=3) == {"a#0": 1.0, "b#0": 0.5, "c#0": 0.0}


def test_of_a_list_that_shows_all_there_is_the_worst_is_what_was_not_found() -> None:
    assert relative([row("a", 8.0), row("b", 4.0)], full=50, floor=0.0) == {"a#0": 1.0, "b#0": 0.5}
    assert relative([row("a", 8.0)], full=50) == {"a#0": 1.0}
    assert relative([], full=50) == {}


def test_what_both_lists_say_wins() -> None:
    lists = Lists(dense=[row("a", 0.9), row("b", 0.8), row("c", 0.1)], lexical=[row("b", 7.0), row("d", 1.0)])
    hits = fuse(lists, EQUAL, 10, 50, none)
    assert order(hits)[0] == "b"
    assert all(0 <= hit.score <= 1 for hit in hits)


def test_a_clear_lead_counts_more_than_a_place() -> None:
    """By ranks b (second of both) would come first; by scores a is far ahead in one list."""
    lists = Lists(
        dense=[row("a", 0.9), row("b", 0.2), row("c", 0.1)], lexical=[row("c", 9.0), row("b", 1.0), row("a", 0.9)]
    )
    assert order(fuse(lists, Weights(2.0, 1.0, 0.0), 3, 3, none))[0] == "a"


def test_weights_decide_between_vectors_and_words() -> None:
    lists = Lists(dense=[row("a", 0.9), row("b", 0.1)], lexical=[row("b", 9.0), row("a", 1.0)])
    assert order(fuse(lists, Weights(2.0, 1.0, 1.0), 2, 2, none)) == ["a", "b"]
    assert order(fuse(lists, Weights(1.0, 2.0, 1.0), 2, 2, none)) == ["b", "a"]


def test_a_conversation_lifts_its_messages() -> None:
    lists = Lists(
        dense=[row("a", 0.9), row("b", 0.85), row("z", 0.0)],
        dense_conversations=[conversation("talk", 0.9, ["b", "x"]), conversation("other", 0.1, ["a"])],
    )
    read: list[str] = []

    def fetch(keys: Sequence[str]) -> list[Hit]:
        read.extend(keys)
        return [row(key.removesuffix("#0"), 0.0) for key in keys]

    assert order(fuse(lists, EQUAL, 3, 50, fetch)) == ["b", "a", "x"]
    assert read == ["x#0"]


def test_a_message_that_may_not_be_shown_is_left_out() -> None:
    lists = Lists(dense=[row("a", 0.9)], dense_conversations=[conversation("talk", 0.9, ["gone", "a"])])
    assert order(fuse(lists, EQUAL, 3, 50, lambda keys: [])) == ["a"]


def test_the_best_conversation_of_a_message_speaks_for_it() -> None:
    conversations = [conversation("best", 0.9, ["a"]), conversation("worst", 0.1, ["a", "b"])]
    lists = Lists(dense=[row("a", 0.5), row("b", 0.5)], dense_conversations=conversations)
    first, second = fuse(lists, EQUAL, 2, 2, none)
    assert (first.doc_id, second.doc_id) == ("a", "b")
    assert first.score == 1.0


def test_files_and_messages_of_no_channel_are_not_worse_off_without_a_conversation() -> None:
    lists = Lists(
        dense=[row("file", 0.9, kind="file"), row("loose", 0.8, channel=""), row("said", 0.6), row("z", 0.0)],
        dense_conversations=[conversation("talk", 0.9, ["said"])],
    )
    hits = fuse(lists, EQUAL, 3, 4, none)
    assert order(hits) == ["file", "loose", "said"]
    assert hits[0].score == 1.0


def test_no_hits_are_no_answer() -> None:
    assert fuse(Lists(), EQUAL, 3, 50, none) == []
