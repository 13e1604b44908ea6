"""Vespa: conditions, retries, filters, and the application package; whole runs are in test_vespa_run.py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vespa.package import ApplicationPackage

from embedding.errors import ConfigError, EmbedmillError, ResourceError
from indexers import Settings, open_index
from indexers.base import SearchRequest
from indexers.rows import ADDED, INDEX_ROW, SCAN
from indexers.vespa.client import IN_FLIGHT
from indexers.vespa.index import VespaIndex
from indexers.vespa.package import application, read_dims, read_earlier, write_package
from indexers.vespa.queries import match_body, search_body
from indexers.vespa.strings import restored, searchable, storable
from tests.indexers.test_index_contract import DIM, HOSTILE, V1, V2, rows, scanned, vectors_of
from tests.support.vespa_server import VespaServer

GOLDEN = Path(__file__).parent / "golden" / "vespa"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    write_package(folder, "messages", {V1: DIM, V2: DIM})
    return folder


@pytest.fixture
def server(vespa_server: VespaServer, package: Path) -> VespaServer:
    vespa_server.plan()
    vespa_server.deploy(package, empty=True)
    return vespa_server


@pytest.fixture
def index(server: VespaServer) -> Any:
    index = VespaIndex(server.uri, "messages")
    index.create_version(V1, space_id="space-a", dim=DIM)
    server.plan()
    yield index
    index.close()


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text and "text 0" not in text and "secret" not in text
    return text


# -- an old write never wins -------------------------------------------------------------------------------------------


def test_a_write_of_an_older_source_version_is_refused(index: VespaIndex) -> None:
    assert index.upsert(V1, rows(["a#0", "b#0"], version=5, meta_hash="five")) == []
    assert index.upsert(V1, rows(["a#0", "b#0", "c#0"], version=[4, 6, 1], meta_hash="next")) == ["a#0"]
    assert index.upsert(V1, rows(["a#0"], version=5, meta_hash="again")) == []
    assert {r["chunk_id"]: r["meta_hash"] for r in scanned(index).to_pylist()} == {
        "a#0": "again",
        "b#0": "next",
        "c#0": "next",
    }
    index.delete(V1, ["a#0"])
    assert index.upsert(V1, rows(["a#0"], version=1)) == [], "what is gone refuses nothing"


def test_of_writers_at_once_the_newest_version_stays(index: VespaIndex, server: VespaServer) -> None:
    ids = [f"{n}#0" for n in range(20)]
    server.plan(*["", "lost", "", "429"] * 40)  # with answers that are lost, so that a write is sent again late

    def write(version: int) -> None:
        writer = VespaIndex(server.uri, "messages")
        writer.upsert(V1, rows(ids, version=version, meta_hash=str(version)))
        writer.close()

    threads = [threading.Thread(target=write, args=(version,)) for version in (3, 9, 1, 7, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(scanned(index)["meta_hash"].to_pylist()) == {"9"}
    assert index.count(V1) == 20


# -- what is tried again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "503", "504", "507", "reset", "lost"])
def test_a_write_is_sent_again_until_it_is_taken(index: VespaIndex, server: VespaServer, fault: str) -> None:
    server.plan("", fault, "", fault, fault)
    assert index.upsert(V1, rows([f"{n}#0" for n in range(200)])) == []
    assert server.seen()[fault] == 3
    index.delete(V1, ["0#0", "1#0"])
    assert index.count(V1) == 198 and scanned(index)["chunk_id"].to_pylist()[0] == "10#0"


@pytest.mark.parametrize("fault", ["429", "503", "reset"])
def test_reads_are_asked_again_too(
    index: VespaIndex, server: VespaServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("indexers.vespa.client.VISIT_DOCUMENTS", 7)
    table = rows([f"{n}#0" for n in range(40)])
    index.upsert(V1, table)
    server.plan("", "", fault, "", "", fault)
    assert index.count(V1) == 40
    assert scanned(index).equals(table.select(SCAN.names).sort_by("chunk_id")), (
        "a visit goes on where it was broken off"
    )
    server.plan("", fault, "", "", fault)
    assert index.search(V1, vectors_of(table)[3], SearchRequest("T0", k=1))[0].chunk_id == "3#0"
    assert len(index.fetch_vectors(V1, ["1#0", "2#0", "3#0"])) == 3
    server.plan("", "", fault)
    index.create_version(V2, space_id="space-a", dim=DIM)
    index.drop_version(V2)
    assert index.versions() == [V1]


def test_no_more_are_under_way_than_allowed(index: VespaIndex, server: VespaServer) -> None:
    server.plan("", *["429"] * 100, slow=0.02)
    index.upsert(V1, rows([f"{n}#0" for n in range(400)]))
    seen = server.seen()
    assert IN_FLIGHT / 2 < seen["most"] <= IN_FLIGHT
    assert (seen["429"], seen["200"]) == (100, 401)


def test_a_server_that_stalls_is_left(server: VespaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.vespa.client.REQUEST_SECONDS", 0.3)
    index = VespaIndex(server.uri, "messages")
    index.create_version(V1, space_id="s", dim=DIM)
    server.plan("", "stall", "stall")
    assert index.upsert(V1, rows(["a#0", "b#0", "c#0"])) == []
    assert index.count(V1) == 3
    index.close()


@pytest.mark.parametrize(
    ("fault", "words"), [("507", "HTTP 507, the content cluster is out of memory"), ("reset", "no connection")]
)
def test_what_stays_broken_is_one_line(
    index: VespaIndex, server: VespaServer, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setattr("indexers.vespa.client.FEED_SECONDS", 0.2)
    monkeypatch.setattr("indexers.vespa.client.READ_SECONDS", 0.2)
    server.plan("", *[fault] * 5000)
    with pytest.raises(ResourceError, match=words) as caught:
        index.upsert(V1, rows(["a#0", "b#0"]))
    assert server.uri in one_line(caught.value)
    for call in (lambda: index.count(V1), lambda: list(index.scan(V1)), index.live, index.versions):
        with pytest.raises(ResourceError) as caught:
            call()
        one_line(caught.value)


def test_an_answer_from_a_part_of_the_documents_is_none(index: VespaIndex, server: VespaServer) -> None:
    table = rows(["a#0", "b#0"])
    index.upsert(V1, table)
    server.plan("partial")
    with pytest.raises(ResourceError, match="only a part of the documents could be searched"):
        index.search(V1, vectors_of(table)[0], SearchRequest("T0"))
    server.plan("", "partial")
    with pytest.raises(ResourceError, match="counting messages__v1: only a part"):
        index.count(V1)
    assert index.count(V1) == 2


def test_a_schema_that_is_not_ours_is_named(index: VespaIndex, server: VespaServer, tmp_path: Path) -> None:
    index.create_version(V2, space_id="s", dim=DIM)
    write_package(tmp_path, "messages", {V1: DIM, V2: DIM + 1})
    server.deploy(tmp_path)
    with pytest.raises(ConfigError, match="writing to messages__v2: HTTP 400; is messages__v2 deployed as") as caught:
        index.upsert(V2, rows(["a#0"]))
    one_line(caught.value)


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.vespa.client.READ_SECONDS", 0.3)
    index = VespaIndex("http://user:secret@127.0.0.1:1", "messages", Settings(token="secret"))
    with pytest.raises(ResourceError, match="^Vespa at http://127.0.0.1:1: no connection") as caught:
        index.live()
    one_line(caught.value)


def test_the_token_is_sent_and_never_shown(server: VespaServer) -> None:
    server.plan(token="secret")
    good, bad = (VespaIndex(server.uri, "messages", Settings(token=t)) for t in ("secret", "secret2"))
    good.create_version(V1, space_id="s", dim=DIM)
    assert good.upsert(V1, rows(["a#0"])) == []
    assert (good.count(V1), scanned(good).num_rows, good.versions()) == (1, 1, [V1])
    for call in (bad.live, bad.versions, lambda: bad.delete(V1, ["a#0"])):
        with pytest.raises(ConfigError, match="token or certificate was refused") as caught:
            call()
        one_line(caught.value)
    good.close()
    bad.close()


# -- what is deployed --------------------------------------------------------------------------------------------------


def test_what_is_not_deployed_names_the_command(index: VespaIndex, server: VespaServer) -> None:
    for version, dim in (("messages__v7", DIM), (V2, DIM + 1)):
        with pytest.raises(
            ConfigError, match=f"{version} is not deployed with {dim} dimensions; run `embedmill vespa-package`"
        ) as caught:
            index.create_version(version, space_id="s", dim=dim)
        assert "vespa deploy" in one_line(caught.value)
    assert index.versions() == [V1]
    other = VespaIndex(server.uri, "other")
    with pytest.raises(ConfigError, match="other__versions.*embedmill vespa-package"):
        other.live()
    other.close()


def test_a_dropped_version_is_emptied_by_selection(index: VespaIndex, server: VespaServer) -> None:
    index.create_version(V2, space_id="space-b", dim=DIM)
    for version in (V1, V2):
        index.upsert(version, rows([f"{n}#0" for n in range(30)]))
    index.point_alias(V1)
    index.drop_version(V2)
    assert (server.documents(V2), len(server.documents(V1))) == ({}, 30)
    assert (index.versions(), index.live()) == ([V1], V1)
    assert server.documents("messages__versions")["id:messages:messages__versions::live"] == {
        "version": V1,
        "space_id": "space-a",
        "dim": DIM,
    }


# -- searches ----------------------------------------------------------------------------------------------------------


def test_teams_that_differ_in_case_are_two(index: VespaIndex) -> None:
    table = rows(["a#0", "b#0"], team_id=["T01", "t01"], channel_id=["C", "c"])
    index.upsert(V1, table)
    vector = vectors_of(table)[0]
    assert [h.chunk_id for h in index.search(V1, vector, SearchRequest("T01"))] == ["a#0"]
    assert [h.chunk_id for h in index.search(V1, vector, SearchRequest("t01", channels=["c", "C"]))] == ["b#0"]
    assert index.search(V1, vector, SearchRequest("t01", channels=["C"])) == []


def test_a_schema_whose_filter_leaks_is_caught(
    index: VespaIndex, server: VespaServer, package: Path, tmp_path: Path
) -> None:
    index.upsert(V1, rows(["a#0", "b#0"], team_id=["T01", "t01"]))
    loose = tmp_path / "loose"
    write_package(loose, "messages", {V1: DIM, "messages__v4": DIM})
    schema = loose / "schemas" / "messages__v4.sd"
    schema.write_text(schema.read_text().replace("                cased\n", ""))
    server.deploy(loose)
    index.create_version("messages__v4", space_id="s", dim=DIM)
    index.upsert("messages__v4", rows(["a#0", "b#0"], team_id=["T01", "t01"]))
    with pytest.raises(ResourceError, match="messages__v4 answers with rows of another team"):
        index.search("messages__v4", np.ones(DIM), SearchRequest("T01"))


def test_nothing_in_a_text_is_query_language(index: VespaIndex) -> None:
    table = rows(["a#0", "b#0", "c#0"], lexical=["parcel lunch", "team id", "parcel"], team_id=["T1", "T1", "T2"])
    index.upsert(V1, table)
    for text in ('team_id:T2 +parcel -lunch "', '" or true', "@team id", "{targetHits:1} parcel"):
        assert {h.team_id for h in index.match(V1, text, SearchRequest("T1", k=200))} <= {"T1"}
    assert [h.chunk_id for h in index.match(V1, 'chunk_id:c +parcel -lunch "', SearchRequest("T1"))] == ["a#0"]


def test_types_of_an_earlier_release_keep_their_columns(
    index: VespaIndex, server: VespaServer, package: Path, tmp_path: Path
) -> None:
    """A version without the note of its layout, as every one that an earlier release made."""
    write_package(tmp_path, "messages", {V1: DIM, V2: DIM}, earlier=[V2])
    server.deploy(tmp_path, empty=True)
    schema = (tmp_path / "schemas" / f"{V2}.sd").read_text()
    assert not any(f"field {name} type" in schema for name in ADDED) and "bm25(text)" in schema
    index.create_version(V1, space_id="s", dim=DIM)
    index._client.put(index._types, [(V2, {"version": V2, "space_id": "s", "dim": DIM})])
    assert (index.versions(), index.earlier()) == ([V1, V2], {V2})
    table = rows(["a#0", "b#0"], text=["the parcel", "the lunch"], lexical="nothing")
    for version in (V1, V2):
        assert index.upsert(version, table) == []
    assert set(server.documents(V2)[f"id:messages:{V2}::a#0"]) == set(INDEX_ROW.names) - {*ADDED, "vector"}
    (hit,) = index.match(V2, "parcel", SearchRequest("T0"))
    assert (hit.chunk_id, hit.author, hit.visibility) == ("a#0", "", "")
    for asked in (
        SearchRequest("T0", author_ids=["U"]),
        SearchRequest("T0", thread_id="t"),
        SearchRequest("T0", [], public=True),
        SearchRequest("T0", mentions=["U"]),
        SearchRequest("T0", has_file=True),
        SearchRequest("T0", languages=["de"]),
    ):
        with pytest.raises(ConfigError, match=f"{V2} has no .* to filter by; run `embedmill reindex`"):
            index.search(V2, np.ones(DIM), asked)
    # Deployed as before, a version that is still to be made would lack columns: that is said before it is made.
    write_package(tmp_path, "messages", {V1: DIM, V2: DIM, "messages__v3": DIM}, earlier=[V2, "messages__v3"])
    assert read_earlier(tmp_path, "messages") == {V2, "messages__v3"}
    server.deploy(tmp_path)
    with pytest.raises(ConfigError, match="messages__v3 is not deployed with 16 dimensions"):
        index.create_version("messages__v3", space_id="s", dim=DIM)
    assert write_package(tmp_path, "messages", {V1: DIM, V2: DIM, "messages__v3": DIM}, earlier=[V2], unused=True) == [
        "messages__v3"
    ]
    assert "indexing-change" in (tmp_path / "validation-overrides.xml").read_text()
    server.deploy(tmp_path)
    index.create_version("messages__v3", space_id="s", dim=DIM)


def test_searches_of_many_threads_go_on_while_the_pointer_moves(index: VespaIndex) -> None:
    index.create_version(V2, space_id="space-a", dim=DIM)
    table = rows([f"{n}#0" for n in range(50)])
    for version in (V1, V2):
        index.upsert(version, table.set_column(10, "text", [[version] * 50]).cast(table.schema))
    index.point_alias(V1)
    query, done, wrong = vectors_of(table)[0], threading.Event(), []

    def search() -> None:
        while not done.is_set():
            try:
                texts = {hit.text for hit in index.search(None, query, SearchRequest("T0", k=20))}
            except Exception as error:  # whatever it is, a search must not meet it
                texts = {repr(error)}
            if texts not in ({V1}, {V2}):
                wrong.append(texts)

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for version in (V2, V1, V2, V1, V2):
        index.point_alias(version)
        assert index.live() == version
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_value_is_part_of_the_query() -> None:
    def asked(value: str, channel: str) -> dict[str, Any]:
        request = SearchRequest(value, [channel, "C"], [value], 3, [value, "U"], thread_id=value)
        return match_body(V1, "lexical", value, request)

    for value in HOSTILE:
        body = asked(value, value)
        # A list of values has no escapes: one with a quote in it is a term of its own.
        assert body["yql"] == asked('"' if '"' in value else "x", '"' if '"' in value else "x")["yql"]
        assert restored(body["team"]) == restored(body["words"]) == restored(body["thread"]) == value
    assert "team_id contains @team" in search_body(V1, np.ones(4), SearchRequest("T"), "cosine")["yql"]
    many = search_body(V1, np.ones(4), SearchRequest("T", [f"C{n}" for n in range(2_000)], public=True), "cosine")
    assert many["yql"].endswith('(visibility contains "public" or channel_id in (@channel_id))')
    assert many["channel_id"].startswith('"C0","C1",') and many["channel_id"].count('"') == 4_000


def test_strings_are_stored_as_vespa_takes_them() -> None:
    for text in (*HOSTILE, "", "\uf8ff", "\uf8ff\uf8ff1\uf8ff", "\x00\ufdd0\U0001fffe", "".join(map(chr, range(0x90)))):
        assert restored(storable(text)) == text and restored(searchable(text)) == text
        assert searchable(text)
        assert not any(ord(c) < 32 and c not in "\t\n\r" for c in storable(text))
    assert storable("plain é 🧵 \x7f\t") == "plain é 🧵 \x7f\t"


def test_a_channel_can_be_nothing(index: VespaIndex) -> None:
    table = rows(["a#0", "b#0"], channel_id=["", "C"], created_at=[0, 1])
    index.upsert(V1, table)
    assert scanned(index)["channel_id"].to_pylist() == ["", "C"]
    (hit,) = index.search(V1, vectors_of(table)[0], SearchRequest("T0", channels=[""]))
    assert (hit.chunk_id, hit.channel_id, hit.created_at) == ("a#0", "", 0)


# -- the application package -------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_package_is_the_golden_one(tmp_path: Path) -> None:
    """After a wanted change: write_package(Path("tests/indexers/golden/vespa"), "messages", {"messages__v1": 384})."""
    assert write_package(tmp_path, "messages", {V1: 384}) == []
    assert files(tmp_path) == files(GOLDEN)


def test_the_package_is_what_pyvespa_deploys() -> None:
    import zipfile

    package = application("messages", {V1: 384})
    assert isinstance(package, ApplicationPackage)
    with zipfile.ZipFile(package.to_zip()) as zipped:
        inside = {name: zipped.read(name).decode() for name in zipped.namelist()}
    assert {name: inside[name] for name in files(GOLDEN)} == files(GOLDEN)
    (schema,) = [s for s in package.schemas if s.name == V1]
    profiles = schema.rank_profiles
    assert set(profiles) == {"semantic", "bm25"}
    assert profiles["bm25"].first_phase == "bm25(lexical)"
    by_name = {f.name: f for f in schema.document.fields}
    for name in ("team_id", "channel_id", "author_id", "thread_id", "visibility"):
        assert by_name[name].attribute == ["fast-search"] and "cased" in by_name[name].match
    assert by_name["vector"].ann.distance_metric == "angular"
    assert set(by_name) == {f.name for f in rows(["a#0"]).schema}


def test_a_package_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    write_package(tmp_path, "messages", {V1: 384, V2: 384})
    assert read_dims(tmp_path, "messages") == {V1: 384, V2: 384}
    assert read_dims(tmp_path, "other") == {}
    later = {V2: 256, "messages__v3": 256}
    assert write_package(tmp_path, "messages", later) == [V1, V2]
    assert read_dims(tmp_path, "messages") == later
    assert not (tmp_path / "validation-overrides.xml").exists(), "what may hold documents is not overridden"
    write_package(tmp_path, "messages", {V1: 384, V2: 384})
    assert write_package(tmp_path, "messages", later, unused=True) == [V1, V2]
    overrides = (tmp_path / "validation-overrides.xml").read_text()
    assert "tensor-type-change" in overrides and "schema-removal" in overrides
    assert write_package(tmp_path, "messages", later, unused=True) == []
    assert not (tmp_path / "validation-overrides.xml").exists()


def test_an_operators_services_are_kept(tmp_path: Path) -> None:
    write_package(tmp_path, "messages", {V1: 8, V2: 8})
    services = tmp_path / "services.xml"
    written = services.read_text()
    write_package(tmp_path, "messages", {V1: 8, V2: 8})
    assert services.read_text() == written
    own = written.replace("<redundancy>1<", "<redundancy>2<").replace(
        "</documents>", '    <document type="other" mode="index"/>\n        </documents>'
    )
    services.write_text(own)
    write_package(tmp_path, "messages", {V2: 8, "messages__v3": 8})
    assert services.read_text() == own.replace(V2, "messages__v3").replace(V1, V2)
    services.write_text("<services/>")
    with pytest.raises(ConfigError, match="services.xml"):
        write_package(tmp_path, "messages", {V1: 8})


def test_settings_that_vespa_cannot_take_name_the_key(tmp_path: Path) -> None:
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: application("m" * 41, {}), "index.name"),
        (lambda: open_index("vespa", "state/vespa", "messages"), "index.uri"),
        (
            lambda: open_index(
                "vespa", "https://127.0.0.1:1", "messages", settings=Settings(tls_cert=str(tmp_path / "none.pem"))
            ),
            "index.tls_cert",
        ),
    ]
    for call, key in wrong:
        with pytest.raises(EmbedmillError, match=key) as caught:
            call()
        assert caught.value.exit_code == 2
        one_line(caught.value)
