"""One suite for every ``Index``: in memory, Milvus Lite, a real Milvus server, and Vespa's protocol double."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from milvus_lite.engine.collection import Collection
from pymilvus import MilvusClient

from embedding.errors import ConfigError, LeaseHeldError, ResourceError, SpaceMismatchError
from indexers import INDEXES, Settings, find_index, open_index
from indexers.base import Index, SearchRequest
from indexers.exact import ExactIndex
from indexers.milvus.filters import literal, search_filter
from indexers.milvus.index import MilvusIndex
from indexers.milvus.wire import batches
from indexers.rows import INDEX_ROW, SCAN, too_long
from indexers.vespa.package import write_package
from tests.support.paths import ROOT
from tests.support.vespa_server import VespaServer

DIM = 16
V1, V2 = "messages__v1", "messages__v2"
DOT = "messages__v4"  # compares vectors by their dot product

HOSTILE = [
    "quote\"'`",
    "back\\slash\\",
    "\\",
    'mix\\"',
    "new\nline\r\n\ttab",
    "control\x01\x08\x0c\x7f",
    "emoji 🧵 ключ 鍵",
    "percent%20%s_like%",
    "{brace} $meta [list], or true",
    '" or team_id != "',
    "a" * 500,
    "é" * 250,
]


def rows(ids: list[str], seed: int = 0, **columns: object) -> pa.Table:
    """Rows of distinct vectors; a column is a constant or a list."""
    count = len(ids)
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    values: dict[str, object] = {
        "chunk_id": ids,
        "team_id": "T0",
        "channel_id": "C0",
        "channel_name": "general",
        "kind": "message",
        "doc_id": [i.split("#")[0] for i in ids],
        "chunk_no": 0,
        "created_at": list(range(count)),
        "updated_at": 5,
        "version": 1,
        "text": [f"text {i}" for i in range(count)],
        "lexical": [f"words of {i.split('#')[0]}" for i in ids],
        "author": "Ada",
        "author_id": "U0",
        "thread_id": [i.split("#")[0] for i in ids],
        "title": "",
        "visibility": "public",
        "mentions": [[] for _ in ids],
        "has_file": False,
        "language": "",
        "meta": "{}",
        "content_hash": [f"c{seed}-{i}" for i in range(count)],
        "meta_hash": f"m{seed}",
        "vector": list(vectors),
        **columns,
    }
    return pa.table(
        {name: value if isinstance(value, list) else [value] * count for name, value in values.items()},
        schema=INDEX_ROW,
    )


def vectors_of(table: pa.Table) -> np.ndarray:
    return np.array(table["vector"].to_pylist(), dtype=np.float32)


def scanned(index: Index, version: str = V1) -> pa.Table:
    return pa.Table.from_batches(index.scan(version), schema=SCAN).sort_by("chunk_id")


def matching(table: pa.Table) -> pa.Table:
    return table.select(SCAN.names).sort_by("chunk_id")


@pytest.fixture(params=["exact", "milvus", "server", "vespa"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Index]]:
    kind, uri = request.param, str(tmp_path / "index.db")
    if kind == "server":
        kind, uri = "milvus", request.getfixturevalue("milvus_server").uri
        clear(uri)
    if kind == "vespa":
        server: VespaServer = request.getfixturevalue("vespa_server")
        server.plan()
        server.deploy(request.getfixturevalue("vespa_package"), empty=True)
        uri = server.uri
    opened: list[Index] = []

    def connect() -> Index:
        opened.append(open_index(kind, uri, "messages"))
        return opened[-1]

    yield connect
    for index in opened:
        index.close()


@pytest.fixture(scope="module")
def vespa_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application with the versions that these tests create."""
    folder = tmp_path_factory.mktemp("package")
    dims = {f"messages__v{n}": DIM for n in (1, 2, 4, 10)} | {"messages__v3": 2 * DIM}
    write_package(folder, "messages", dims, dot=[DOT])
    return folder


def clear(uri: str) -> None:
    client = MilvusClient(uri)
    for version in client.list_collections():
        if version.startswith("messages__v"):
            for alias in client.list_aliases(version)["aliases"]:
                client.drop_alias(alias)
            client.drop_collection(version)
    client.close()


@pytest.fixture
def index(connect: Callable[[], Index]) -> Index:
    index = connect()
    index.create_version(V1, space_id="space-a", dim=DIM)
    return index


def test_create_is_idempotent_and_keeps_rows(index: Index) -> None:
    index.upsert(V1, rows(["a#0"]))
    index.create_version(V1, space_id="space-a", dim=DIM)
    assert index.count(V1) == 1
    assert index.space_of(V1) == "space-a"
    with pytest.raises(SpaceMismatchError, match="space-a.*space-b"):
        index.create_version(V1, space_id="space-b", dim=DIM)
    with pytest.raises(SpaceMismatchError):
        index.create_version(V1, space_id="space-a", dim=DIM + 1)


def test_upsert_replaces_by_key(index: Index) -> None:
    index.upsert(V1, rows(["a#0", "b#0"], seed=1))
    index.upsert(V1, rows(["b#0", "c#0"], seed=2).to_batches()[0])
    assert index.count(V1) == 3
    assert {r["chunk_id"]: r["meta_hash"] for r in scanned(index).to_pylist()} == {
        "a#0": "m1",
        "b#0": "m2",
        "c#0": "m2",
    }
    expected = vectors_of(rows(["b#0"], seed=2))[0]
    assert np.abs(index.fetch_vectors(V1, ["b#0"])["b#0"] - expected).max() < 1e-6
    assert [h.text for h in index.search(V1, expected, SearchRequest("T0", k=1))] == ["text 0"]


def test_a_replaced_row_leaves_its_old_team(index: Index) -> None:
    index.upsert(V1, rows(["a#0"], team_id="T0"))
    index.flush(V1)
    moved = rows(["a#0"], team_id="T1")
    index.upsert(V1, moved)
    vector = vectors_of(moved)[0]
    assert index.search(V1, vector, SearchRequest("T0")) == []
    assert len(index.search(V1, vector, SearchRequest("T1"))) == 1


def test_delete(index: Index) -> None:
    table = rows([f"{i}#0" for i in range(10)])
    index.upsert(V1, table)
    index.delete(V1, ["3#0", "7#0", "unknown#0"])
    index.delete(V1, [])
    index.delete(V1, ["unknown#0"])
    assert index.count(V1) == 8
    assert scanned(index)["chunk_id"].to_pylist() == [f"{i}#0" for i in (0, 1, 2, 4, 5, 6, 8, 9)]
    assert set(index.fetch_vectors(V1, ["3#0", "4#0"])) == {"4#0"}
    hits = index.search(V1, vectors_of(table)[3], SearchRequest("T0", k=10))
    assert "3#0" not in {hit.chunk_id for hit in hits}
    index.upsert(V1, table.slice(3, 1))
    assert index.count(V1) == 9


def test_an_empty_index_answers(index: Index) -> None:
    assert index.count(V1) == 0
    assert list(index.scan(V1)) == []
    assert index.fetch_vectors(V1, ["a#0"]) == {}
    assert index.search(V1, np.ones(DIM, np.float32), SearchRequest("T0")) == []
    index.upsert(V1, INDEX_ROW.empty_table())
    assert index.count(V1) == 0


def test_search_sees_only_the_filters_rows(index: Index) -> None:
    ids = [f"{i}#0" for i in range(600)]
    table = rows(
        ids,
        team_id=[f"T{i % 10}" for i in range(600)],
        channel_id=[f"C{i % 7}" for i in range(600)],
        kind=["file" if i % 3 else "message" for i in range(600)],
    )
    index.upsert(V1, table)
    vectors = vectors_of(table)
    for team in range(10):
        hits = index.search(V1, vectors[team], SearchRequest(f"T{team}", k=100))
        assert {h.chunk_id for h in hits} == {f"{i}#0" for i in range(600) if i % 10 == team}
        assert hits[0].chunk_id == f"{team}#0"
    hits = index.search(V1, vectors[0], SearchRequest("T0", channels=["C1", "C2"], kinds=["file"], k=100))
    expected = {i for i in range(600) if i % 10 == 0 and i % 7 in (1, 2) and i % 3}
    assert {h.chunk_id for h in hits} == {f"{i}#0" for i in expected}
    assert index.search(V1, vectors[0], SearchRequest("T", k=5)) == []
    assert index.search(V1, vectors[0], SearchRequest("T0", channels=["C"], k=5)) == []


def test_scores_are_cosines_and_the_order_is_the_oracles(index: Index) -> None:
    table = rows([f"{i}#0" for i in range(300)], meta='{"page":3}', channel_name="Général", kind="file")
    index.upsert(V1, table)
    vectors = vectors_of(table).astype(np.float64)
    query = 3.0 * vectors[42] + 0.1 * vectors[7]
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    hits = index.search(V1, query.astype(np.float32), SearchRequest("T0", k=20))
    assert [h.chunk_id for h in hits] == [f"{i}#0" for i in np.argsort(-cosines)[:20]]
    assert np.abs(np.array([h.score for h in hits]) - np.sort(cosines)[::-1][:20]).max() < 1e-5
    (best,) = index.search(V1, vectors[42].astype(np.float32), SearchRequest("T0", k=1))
    assert best.score == pytest.approx(1.0, abs=1e-5)
    assert (best.chunk_id, best.doc_id, best.text, best.created_at) == ("42#0", "42", "text 42", 42)
    assert (best.team_id, best.channel_id, best.channel_name, best.kind) == ("T0", "C0", "Général", "file")
    assert json.loads(best.meta) == {"page": 3}


def test_a_version_of_dot_products_counts_lengths_too(connect: Callable[[], Index]) -> None:
    """Found in the order of the exact products, among many and among few; it says so to the next connection."""
    index = connect()
    index.create_version(DOT, space_id="space-a", dim=DIM, metric="dot")
    count = 300
    vectors = np.random.default_rng(3).normal(size=(count, DIM)) * np.linspace(0.5, 8, count)[:, None]
    table = rows(
        [f"{n}#0" for n in range(count)],
        team_id=["T1" if n % 60 == 0 else "T0" for n in range(count)],
        vector=[vector.astype(np.float32) for vector in vectors],
    )
    index.upsert(DOT, table)
    index = connect()
    index.create_version(DOT, space_id="space-a", dim=DIM, metric="dot")
    assert index.metric_of(DOT) == "dot"
    query = np.random.default_rng(4).normal(size=DIM)
    products = vectors_of(table).astype(np.float64) @ query
    for team, k in (("T0", 20), ("T1", 20)):
        mine = [n for n in range(count) if (n % 60 == 0) == (team == "T1")]
        best = sorted(mine, key=lambda n: -products[n])[:k]
        hits = index.search(DOT, query.astype(np.float32), SearchRequest(team, k=k))
        assert [hit.chunk_id for hit in hits] == [f"{n}#0" for n in best]
        np.testing.assert_allclose([hit.score for hit in hits], products[best], rtol=1e-5, atol=1e-5)
    near = index.fetch_vectors(DOT, ["299#0"])["299#0"]
    np.testing.assert_allclose(near, vectors[299], rtol=1e-6)
    with pytest.raises(SpaceMismatchError, match="messages__v4 holds space space-a .16 dimensions, dot., not .*cosine"):
        index.create_version(DOT, space_id="space-a", dim=DIM)


def test_a_version_compares_by_cosine_unless_it_says_otherwise(index: Index) -> None:
    assert index.metric_of(V1) == "cosine"
    with pytest.raises(SpaceMismatchError, match="cosine"):
        index.create_version(V1, space_id="space-a", dim=DIM, metric="dot")


def test_the_best_matches_of_words_come_first(index: Index) -> None:
    lexical = [
        "parcel parcel lockers",
        "the parcel is in one of the many long halls",
        "lunch",
        "PARCEL!",
        "",
        "parcels",
    ]
    table = rows([f"{n}#0" for n in range(6)], lexical=lexical, text="other words", team_id=["T0"] * 3 + ["T1"] * 3)
    index.upsert(V1, table)
    assert index.matches_words(V1) == index.capabilities().lexical
    if not index.capabilities().lexical:
        with pytest.raises(ConfigError, match=f"{V1} on .* has no index of words; it has no BM25"):
            index.match(V1, "parcel", SearchRequest("T0"))
        return
    found = index.match(V1, "Parcel?", SearchRequest("T0"))
    assert [hit.chunk_id for hit in found] == ["0#0", "1#0"] and found[0].score > found[1].score > 0
    assert found[0].text == "other words", "what is shown is the text, what is matched is not"
    assert [hit.chunk_id for hit in index.match(V1, "lunch or lockers", SearchRequest("T0"))] == ["2#0", "0#0"]
    assert [hit.chunk_id for hit in index.match(V1, "parcel", SearchRequest("T0", k=1))] == ["0#0"]
    assert [hit.chunk_id for hit in index.match(V1, "parcel", SearchRequest("T1"))] == ["3#0"]
    for text in ("", " \n", "?!", "unknown", "other"):
        assert index.match(V1, text, SearchRequest("T0")) == []
    index.upsert(V1, rows(["0#0"], lexical="coffee"))
    index.delete(V1, ["1#0"])
    assert index.match(V1, "parcel", SearchRequest("T0")) == []


def test_a_hit_shows_what_its_row_says(index: Index) -> None:
    said: dict[str, Any] = {
        "author": "Ada L.",
        "author_id": "U7",
        "thread_id": "t/1",
        "title": "Notes",
        "visibility": "shared",
        "mentions": ("U1", 'U"2'),
        "has_file": True,
        "language": "de",
    }
    table = rows(["a#0"], channel_name="general", **said | {"mentions": [["U1", 'U"2']]})
    index.upsert(V1, table)
    (near,) = index.search(V1, vectors_of(table)[0], SearchRequest("T0"))
    (got,) = index.fetch(V1, ["a#0"], SearchRequest("T0"))
    assert {name: getattr(near, name) for name in said} == said and near.created_at == 0
    assert got == replace(near, score=0.0)


FILTERS = [
    SearchRequest("T0"),
    SearchRequest("T0", kinds=["message", "thread"]),
    SearchRequest("T0", ["C1", "C2"], ["file"]),
    SearchRequest("T0", author_ids=["U1", 'U"2']),
    SearchRequest("T0", thread_id="t3"),
    SearchRequest("T0", since=20, until=60),
    SearchRequest("T0", until=0),
    SearchRequest("T0", mentions=["U1"]),
    SearchRequest("T0", mentions=['U"2', "U3", "none"], has_file=True),
    SearchRequest("T0", mentions=["none"]),
    SearchRequest("T0", has_file=True),
    SearchRequest("T0", languages=["de", "none"]),
    SearchRequest("T0", ["C1", "C4"], languages=["fr", "de"], has_file=True),
    SearchRequest("T0", public=True),
    SearchRequest("T0", ["C1"], public=True),
    SearchRequest("T0", ["C1", "C4"], ["thread", "file"], 7, ["U0", "U1"], since=5, public=True),
    SearchRequest("T0", [f"C{n}" for n in range(2, 2_002)]),
    SearchRequest("T0", [f"C{n}" for n in range(2, 2_002)], public=True),
    SearchRequest("none", public=True),
]


def test_every_way_to_ask_sees_the_rows_of_the_filters_and_no_others(index: Index) -> None:
    ids = [f"{n}#0" for n in range(120)]
    kinds, authors, seen = ("message", "file", "thread"), ("U0", "U1", 'U"2'), ("public", "private", "direct", "shared")
    table = rows(
        ids,
        team_id=[f"T{n % 2}" for n in range(120)],
        channel_id=[f"C{n // 2 % 5}" for n in range(120)],
        kind=[kinds[n % 3] for n in range(120)],
        author_id=[authors[n // 5 % 3] for n in range(120)],
        thread_id=[f"t{n // 8}" for n in range(120)],
        visibility=[seen[n // 2 % 4] for n in range(120)],
        mentions=[[f"U{i}" if i != 2 else 'U"2' for i in range(n // 6 % 5)] for n in range(120)],
        has_file=[n // 4 % 3 == 0 for n in range(120)],
        language=[("", "de", "en", "fr")[n // 3 % 4] for n in range(120)],
        lexical=[f"words {n}" for n in range(120)],
    )
    oracle = ExactIndex(name="messages")
    oracle.create_version(V1, space_id="space-a", dim=DIM)
    for filled in (oracle, index):
        filled.upsert(V1, table)
    query = vectors_of(table)[1]
    for asked in FILTERS:
        everything = replace(asked, k=200)
        expected = [hit.chunk_id for hit in oracle.search(V1, query, everything)]
        assert [h.chunk_id for h in index.search(V1, query, asked)] == expected[: asked.k]
        assert [h.chunk_id for h in index.search(V1, query, everything)] == expected
        assert [h.chunk_id for h in index.fetch(V1, ids, asked)] == [i for i in ids if i in expected]
        if index.capabilities().lexical:
            assert {h.chunk_id for h in index.match(V1, "words", everything)} == set(expected)


def test_rows_are_fetched_by_key_within_a_request(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.milvus.reader.FETCH_KEYS", 2)
    index.upsert(V1, rows(["a#0", "b#0", "c#0", 'd"#0'], team_id=["T0", "T0", "T1", "T0"]))
    index.point_alias(V1)
    found = index.fetch(None, ['d"#0', "c#0", "b#0", "unknown#0", "b#0", "a#0"], SearchRequest("T0", k=1))
    assert [(hit.chunk_id, hit.score) for hit in found] == [('d"#0', 0.0), ("b#0", 0.0), ("a#0", 0.0)]
    assert index.fetch(V1, [], SearchRequest("T0")) == []


def test_hostile_values_are_only_values(index: Index) -> None:
    ids: dict[str, Any] = dict.fromkeys(
        ("channel_id", "text", "doc_id", "author_id", "thread_id", "lexical", "title"), HOSTILE
    )
    table = rows(HOSTILE, team_id=[h[:100] for h in HOSTILE], **ids)
    index.upsert(V1, table)
    index.upsert(V1, rows(["other#0"], seed=9))
    assert scanned(index).slice(0).equals(matching(pa.concat_tables([table, rows(["other#0"], seed=9)])))
    vectors = vectors_of(table)
    got = index.fetch_vectors(V1, HOSTILE)
    for i, value in enumerate(HOSTILE):
        assert np.abs(got[value] - vectors[i]).max() < 1e-6
        asked = SearchRequest(value[:100], [value], author_ids=[value], thread_id=value)
        (hit,) = index.search(V1, vectors[i], asked)
        assert (hit.chunk_id, hit.text, hit.author_id, hit.title) == (value, value, value, value)
        assert index.fetch(V1, HOSTILE, asked) == [replace(hit, score=0.0)]
    for value in HOSTILE:
        index.delete(V1, [value])
    assert scanned(index)["chunk_id"].to_pylist() == ["other#0"]


def test_scan_of_many_rows(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.milvus.reader.SCAN_ROWS", 700)
    table = rows([f"T0/m/C/{i}#{i % 3}" for i in range(5000)])
    index.upsert(V1, table)
    index.delete(V1, [f"T0/m/C/{i}#{i % 3}" for i in range(0, 5000, 5)])
    got = scanned(index)
    assert got.schema == SCAN
    kept = table.filter(pa.array([i % 5 != 0 for i in range(5000)]))
    assert got.equals(matching(kept))
    assert index.count(V1) == 4000
    ids = kept["chunk_id"].to_pylist()
    assert set(index.fetch_vectors(V1, ids)) == set(ids)


@pytest.mark.slow
def test_a_hundred_thousand_rows(index: Index, request: pytest.FixtureRequest) -> None:
    """Of Vespa's double, which takes a request for each row in Python, a third: pages and shares are as many."""
    count = 33_000 if "vespa" in request.node.name else 100_000
    numbers = np.arange(count)
    ids = [f"T{n % 20}/m/C{n % 7}/{n}#0" for n in range(count)]
    table = rows(
        ids,
        team_id=[f"T{n % 20}" for n in range(count)],
        channel_id=[f"C{n % 7}" for n in range(count)],
        kind=["file" if n % 3 else "message" for n in range(count)],
    )
    for start in range(0, count, 20_000):
        index.upsert(V1, table.slice(start, 20_000))
    index.flush(V1)
    changed = table.filter(pa.array(numbers % 10 == 3))
    place = changed.column_names.index("meta_hash")
    changed = changed.set_column(place, INDEX_ROW.field("meta_hash"), pa.array(["changed"] * len(changed)))
    index.upsert(V1, changed)
    index.delete(V1, [ids[n] for n in range(5, count, 25)])
    kept = pa.concat_tables([table.filter(pa.array((numbers % 10 != 3) & (numbers % 25 != 5))), changed])
    assert index.count(V1) == len(kept) == count * 96 // 100
    assert scanned(index).equals(matching(kept))

    matrix, query = vectors_of(table), vectors_of(table)[40]
    for team, channel in ((0, 5), (7, 0), (19, 6)):
        wanted = (numbers % 20 == team) & (numbers % 7 == channel) & (numbers % 3 != 0) & (numbers % 25 != 5)
        mine = {ids[n]: matrix[n] for n in np.flatnonzero(wanted)}
        hits = index.search(V1, query, SearchRequest(f"T{team}", channels=[f"C{channel}"], kinds=["file"], k=1_000))
        assert {hit.chunk_id for hit in hits} == set(mine), "all rows of the filter and no others"
        held = np.stack(list(mine.values()))
        cosines = held @ query / np.linalg.norm(held, axis=1) / np.linalg.norm(query)
        assert np.allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-5)


def test_the_alias_moves(index: Index) -> None:
    assert index.live() is None
    with pytest.raises(ConfigError, match="no live version"):
        index.search(None, np.ones(DIM, np.float32), SearchRequest("T0"))
    index.upsert(V1, rows(["old#0"]))
    index.point_alias(V1)
    index.point_alias(V1)
    assert index.live() == V1
    index.create_version(V2, space_id="space-b", dim=DIM)
    index.upsert(V2, rows(["new#0"]))
    query = vectors_of(rows(["x"]))[0]
    assert [h.chunk_id for h in index.search(None, query, SearchRequest("T0"))] == ["old#0"]
    index.point_alias(V2)
    assert [h.chunk_id for h in index.search(None, query, SearchRequest("T0"))] == ["new#0"]
    assert (index.live(), index.versions(), index.space_of(V2)) == (V2, [V1, V2], "space-b")
    with pytest.raises(ConfigError, match="live"):
        index.drop_version(V2)
    index.point_alias(V1)
    index.drop_version(V2)
    index.drop_version(V2)
    assert index.versions() == [V1]
    # A document type of Vespa has the dimension that it was deployed with.
    deployed = index.capabilities().engine.startswith("Vespa")
    again = "messages__v3" if deployed else V2
    index.create_version(again, space_id="space-c", dim=DIM * 2)
    assert (index.count(again), index.space_of(again)) == (0, "space-c")


def test_the_live_version_is_there_at_every_moment_of_a_move(index: Index, connect: Callable[[], Index]) -> None:
    index.create_version(V2, space_id="space-b", dim=DIM)
    index.point_alias(V1)
    seen: set[str | None] = set()
    done = threading.Event()

    def look() -> None:
        other = connect()
        while not done.is_set():
            seen.add(other.live())

    thread = threading.Thread(target=look)
    thread.start()
    for move in range(30):
        index.point_alias((V2, V1)[move % 2])
    done.set()
    thread.join()
    assert seen and seen <= {V1, V2}


def test_versions_are_ordered_by_number_and_by_index(index: Index, connect: Callable[[], Index]) -> None:
    for n in (10, 2):
        index.create_version(f"messages__v{n}", space_id="s", dim=DIM)
    assert index.versions() == [V1, V2, "messages__v10"]
    with pytest.raises(ValueError, match="called messages__v1"):
        index.create_version("other__v1", space_id="s", dim=DIM)


def test_everything_survives_a_reopen(index: Index, connect: Callable[[], Index]) -> None:
    table = rows([f"{i}#0" for i in range(50)])
    index.upsert(V1, table)
    index.delete(V1, ["0#0"])
    index.point_alias(V1)
    index.close()
    again = connect()
    assert (again.live(), again.versions(), again.space_of(V1), again.count(V1)) == (V1, [V1], "space-a", 49)
    assert scanned(again).equals(matching(table.slice(1)))
    (hit,) = again.search(None, vectors_of(table)[7], SearchRequest("T0", k=1))
    assert hit.chunk_id == "7#0"


def test_a_version_remembers_the_state_that_owns_it(index: Index, connect: Callable[[], Index]) -> None:
    assert index.owner_of(V1) == "", "made without one, as by an earlier release"
    index.set_owner(V1, "state-a")
    index.upsert(V1, rows(["a#0"]))
    index.create_version(V2, space_id="space-b", dim=DIM, owner="state-b")
    index.create_version(V2, space_id="space-b", dim=DIM, owner="state-c")
    index.flush(V1)
    index.close()
    again = connect()
    assert (again.owner_of(V1), again.owner_of(V2)) == ("state-a", "state-b")
    again.set_owner(V2, "state-c")
    assert (again.owner_of(V1), again.owner_of(V2), again.space_of(V2)) == ("state-a", "state-c", "space-b")
    assert (again.versions(), again.count(V1)) == ([V1, V2], 1), "no version of its own, and no row"
    again.drop_version(V2)
    again.create_version(V2, space_id="space-b", dim=DIM)
    assert again.owner_of(V2) == "", "goes with its version"


def test_two_connections_share_an_index(index: Index, connect: Callable[[], Index]) -> None:
    other = connect()
    index.upsert(V1, rows(["a#0"]))
    assert other.count(V1) == 1
    other.close()
    assert index.count(V1) == 1


def test_vectors_come_back_as_written(index: Index) -> None:
    table = rows([f"{i}#0" for i in range(1500)], seed=4)
    index.upsert(V1, table)
    index.flush(V1)
    ids = table["chunk_id"].to_pylist()
    got = index.fetch_vectors(V1, [*ids, "unknown#0"])
    assert set(got) == set(ids)
    assert all(v.dtype == np.float32 for v in got.values())
    assert np.abs(np.stack([got[i] for i in ids]) - vectors_of(table)).max() < 1e-6


def test_compaction_keeps_what_lives(index: Index) -> None:
    table = rows([f"{i}#0" for i in range(200)])
    index.upsert(V1, table)
    index.flush(V1)
    index.delete(V1, [f"{i}#0" for i in range(0, 200, 2)])
    index.compact(V1)
    kept = table.filter(pa.array([i % 2 == 1 for i in range(200)]))
    assert scanned(index).equals(matching(kept))
    (hit,) = index.search(V1, vectors_of(table)[11], SearchRequest("T0", k=1))
    assert hit.chunk_id == "11#0"
    index.compact(V1)
    index.delete(V1, kept["chunk_id"].to_pylist())
    index.compact(V1)
    assert index.count(V1) == 0
    index.upsert(V1, table)
    assert index.count(V1) == 200


def test_rows_that_no_engine_can_hold_are_refused_whole(index: Index) -> None:
    bad = rows(["a#0", "b#0"])
    with pytest.raises(ValueError, match="twice"):
        index.upsert(V1, rows(["a#0", "a#0"]))
    with pytest.raises(ValueError, match="dimensions"):
        index.upsert(V1, rows(["a#0"], vector=[[1.0] * (DIM + 1)]))
    with pytest.raises(ValueError, match="NaN"):
        index.upsert(V1, rows(["a#0"], vector=[[float("nan")] * DIM]))
    long = rows(["a#0", "b#0"], text=["fine", "é" * 40_000])
    limits = find_index(index.capabilities().engine.split()[0].lower()).max_bytes()
    assert too_long(long, limits) == {"b#0": "text"}
    assert too_long(bad, limits) == {}
    with pytest.raises(ValueError, match="text of b#0 is over 65535 bytes"):
        index.upsert(V1, long)
    assert index.count(V1) == 0
    index.upsert(V1, rows(["a#0"], text="é" * 32_767))
    assert index.count(V1) == 1


def test_an_engine_s_limits_are_asked_without_its_client() -> None:
    ask = "import sys, indexers; [kind.max_bytes() for kind in indexers.INDEXES.values()]; "
    asked = subprocess.run([sys.executable, "-c", ask + "print({'pymilvus', 'vespa'} & set(sys.modules))"], stdout=-1)
    assert asked.stdout == b"set()\n"
    for kind in INDEXES.values():
        assert set(kind.max_bytes()) == {f.name for f in INDEX_ROW if f.type in (pa.string(), pa.list_(pa.string()))}


def test_unknown_kind_and_bad_name() -> None:
    with pytest.raises(ConfigError, match="'chroma' is not one of exact, milvus, vespa"):
        open_index("chroma", "x", "messages")
    with pytest.raises(ConfigError, match="letters, digits"):
        open_index("exact", "", "my-index")


def test_a_missing_version_is_an_error(index: Index) -> None:
    for call in (index.count, index.space_of, index.owner_of, index.point_alias):
        with pytest.raises((ConfigError, ResourceError)):
            call("messages__v7")


# What only an embedded or remote engine has.


def test_filters_quote_what_both_grammars_know() -> None:
    assert literal('a"b\\c\n\x01é%') == '"a\\"b\\\\c\\n\x01é%"'
    assert search_filter(SearchRequest('T"')) == 'team_id == "T\\""'
    assert search_filter(SearchRequest("T", ["C1", 'C"'], ["file"], thread_id="t")) == (
        'team_id == "T" and channel_id in ["C1", "C\\""] and kind in ["file"] and thread_id == "t"'
    )
    assert search_filter(SearchRequest("T", ["C1"], public=True, since=-1, until=5)) == (
        'team_id == "T" and (visibility == "public" or channel_id in ["C1"]) and created_at >= -1 and created_at < 5'
    )


def test_batches_are_cut_by_rows_and_bytes() -> None:
    small = rows([f"{i}#0" for i in range(2500)])
    assert list(batches(small, DIM)) == [(0, 1000), (1000, 1000), (2000, 500)]
    large = rows([f"{i}#0" for i in range(300)], text="x" * 60_000)
    cuts = list(batches(large, DIM))
    assert sum(length for _, length in cuts) == 300
    assert max(length for _, length in cuts) * 60_000 <= 8 << 20
    assert list(batches(small.slice(0, 0), DIM)) == []


@pytest.mark.parametrize("flush_first", [True, False])
def test_compaction_takes_deleted_and_replaced_texts_off_the_disk(tmp_path: Path, flush_first: bool) -> None:
    index = MilvusIndex(str(tmp_path / "lite"), "messages")
    index.create_version(V1, space_id="s", dim=DIM)
    index.upsert(V1, rows(["a#0", "b#0", "c#0"], text=["first secret", "second secret", "kept"]))
    if flush_first:
        index.flush(V1)
        assert "first secret" in stored_texts(tmp_path)
    index.delete(V1, ["a#0"])
    index.upsert(V1, rows(["b#0"], text="edited"))
    index.compact(V1)
    assert stored_texts(tmp_path) == {"edited", "kept"}
    index.close()
    assert stored_texts(tmp_path) == {"edited", "kept"}
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"secret" in p.read_bytes()]


def test_compaction_waits_for_what_the_engine_does_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that write one graph file would read each other's half."""
    real, at_work, most = Collection._build_or_load_segment_index, [0], [0]
    mutex = threading.Lock()

    def slow(collection: Collection, *given: object) -> None:
        with mutex:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.3)
        real(collection, *given)
        with mutex:
            at_work[0] -= 1

    index = MilvusIndex(str(tmp_path / "lite"), "messages")
    index.create_version(V1, space_id="s", dim=DIM)
    index.upsert(V1, rows([f"{n}#0" for n in range(8)]))
    monkeypatch.setattr(Collection, "_build_or_load_segment_index", slow)
    index.delete(V1, ["0#0"])
    index.compact(V1)
    assert most == [1]
    assert len(scanned(index, V1)) == 7
    index.close()


def stored_texts(folder: Path) -> set[str]:
    """Texts in the engine's data files, deleted or not."""
    files = [p for p in folder.rglob("data_*.parquet") if p.is_file()]
    return {text for p in files for text in pq.ParquetFile(p).read(columns=["text"])["text"].to_pylist()}


HOLDER = """
import sys
from indexers.milvus.index import MilvusIndex
index = MilvusIndex(sys.argv[1], "messages")
index.create_version("messages__v1", space_id="s", dim=4)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lite")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def test_a_second_process_is_refused_in_one_line(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(LeaseHeldError) as caught:
        MilvusIndex(str(tmp_path / "lite"), "messages", lock_timeout=0.3)
    message = str(caught.value)
    assert str(tmp_path / "lite") in message
    assert "\n" not in message


def test_the_lock_of_a_killed_process_is_free_at_once(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    index = MilvusIndex(str(tmp_path / "lite"), "messages", lock_timeout=1)
    assert index.versions() == [V1]
    index.close()


def test_waiting_gets_the_lock_when_its_holder_ends(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    index = MilvusIndex(str(tmp_path / "lite"), "messages", lock_timeout=15)
    assert index.space_of(V1) == "s"
    index.close()


def test_a_server_that_is_not_there_is_one_line_without_the_token(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexers.milvus.connection.CONNECT_SECONDS", 0.5)
    with pytest.raises(ResourceError) as caught:
        MilvusIndex("http://user:secret@127.0.0.1:1", "messages", Settings(token="s3cr3t"))
    message = str(caught.value)
    assert message.startswith("Milvus at http://127.0.0.1:1: ")
    assert "secret" not in message and "s3cr3t" not in message and "\n" not in message
    assert capfd.readouterr().err == ""


def test_failures_log_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    index = MilvusIndex(str(tmp_path / "lite"), "messages")
    with pytest.raises(ResourceError) as caught:
        index.count("messages__v7")
    assert "\n" not in str(caught.value)
    index.close()
    assert capfd.readouterr().err == ""
    assert logging.getLogger("pymilvus").level > logging.CRITICAL
