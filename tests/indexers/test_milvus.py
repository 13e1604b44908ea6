"""Milvus beyond the contract: TLS, tokens and databases, calls that are tried again, layouts, words, float16 requests.

The server here is Milvus Lite's own engine behind a gRPC port with TLS, which can be told to fail calls.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2_grpc

from embedding.errors import ConfigError, ReadBackError, ResourceError
from indexers import Settings, open_index
from indexers.base import SearchRequest
from indexers.milvus.index import MilvusIndex
from indexers.milvus.layout import Layout, capabilities_of
from indexers.milvus.wire import encode
from indexers.rows import ADDED, INDEX_ROW
from tests.indexers.test_index_contract import DIM, V1, V2, rows, scanned, vectors_of
from tests.support.workspace import Workspace

Refusal = tuple[grpc.StatusCode, str]


def refusing(code: grpc.StatusCode, words: str) -> Callable[[str], Refusal | None]:
    return lambda name: (code, words) if name == "Upsert" else None


class Gate(grpc.ServerInterceptor):
    """Records the calls and their metadata; ``answer`` may turn a call away with a status and words."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[str], Refusal | None] = lambda name: None

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        name = details.method.rsplit("/", 1)[1]
        self.calls.append((name, {key: str(value) for key, value in details.invocation_metadata}))
        if (refusal := self.answer(name)) is None:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(*refusal))

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)


class TlsServer:
    """``uri``, ``gate``, and the certificate in ``ca``, whose name is milvus.test."""

    def __init__(self, folder: Path) -> None:
        key, certificate = _certificate()
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate)
        self.gate = Gate()
        self._database = MilvusLite(str(folder / "served"))
        self._credentials = grpc.ssl_server_credentials([(key, certificate)])
        self._port = 0
        self.listen()
        self.uri = f"https://127.0.0.1:{self._port}"

    def listen(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[self.gate])
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(self._database), self._server)
        self._port = self._server.add_secure_port(f"127.0.0.1:{self._port}", self._credentials)
        self._server.start()

    def hang_up(self) -> None:
        self._server.stop(None).wait()

    def open(self, **settings: Any) -> MilvusIndex:
        given = {"token": "s3cr3t", "tls_ca": str(self.ca), "tls_server_name": "milvus.test", **settings}
        return MilvusIndex(self.uri, "messages", Settings(**given))

    def stop(self) -> None:
        self.hang_up()
        self._database.close()


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "milvus.test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("milvus.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsServer]:
    monkeypatch.setattr("indexers.milvus.index._proofs", {})
    monkeypatch.setattr("indexers.milvus.connection.CONNECT_SECONDS", 2)
    server = TlsServer(tmp_path)
    yield server
    server.stop()


def test_tls_token_and_database_reach_the_server(tls: TlsServer) -> None:
    plain = tls.open()
    plain._milvus.create_database("search")
    index = tls.open(database="search")
    index.create_version(V1, space_id="s", dim=DIM)
    index.upsert(V1, rows(["a#0"]))
    name, metadata = tls.gate.calls[-1]
    assert name == "Upsert" and metadata["authorization"] and metadata["dbname"] == "search"
    assert (index.versions(), plain.versions()) == ([V1], [])
    index.close()
    plain.close()
    nowhere = tls.open(database="nowhere")
    with pytest.raises(ResourceError, match="'nowhere' does not exist"):
        nowhere.versions()
    nowhere.close()
    for wrong in ({"tls_ca": ""}, {"tls_server_name": "other.test"}):
        with pytest.raises(ResourceError, match="Milvus at https://127.0.0.1"):
            tls.open(**wrong)


@pytest.mark.parametrize(
    ("uri", "settings", "said"),
    [
        ("http://127.0.0.1:1", Settings(tls_ca="x.pem"), "index.tls_ca: TLS is for an index.uri"),
        ("https://127.0.0.1:1", Settings(tls_ca="x.pem"), "index.tls_ca: no such file"),
        ("https://127.0.0.1:1", Settings(tls_cert="x.pem"), "index.tls_cert: .* needs tls_cert, tls_key and tls_ca"),
        ("some/folder", Settings(database="search"), "index.database: only a server"),
    ],
)
def test_settings_that_an_address_has_no_use_for(uri: str, settings: Settings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MilvusIndex(uri, "messages", settings)
    assert "s3cr3t" not in repr(Settings(token="s3cr3t"))


def test_calls_are_tried_again_while_it_may_help(tls: TlsServer) -> None:
    index = tls.open()
    index.create_version(V1, space_id="s", dim=DIM)
    busy = iter([grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE] * 2)

    def refuse(name: str) -> tuple[grpc.StatusCode, str] | None:
        code = next(busy, None) if name == "Upsert" else None
        return code and (code, "rate limit")

    before, tls.gate.answer = tls.gate.count("Upsert"), refuse
    index.upsert(V1, rows(["a#0"]))
    assert tls.gate.count("Upsert") - before == 5 and index.count(V1) == 1

    for code, words in (
        (grpc.StatusCode.INVALID_ARGUMENT, "no such field"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max (9 vs. 4)"),
    ):
        before, tls.gate.answer = tls.gate.count("Upsert"), refusing(code, words)
        with pytest.raises(ResourceError):
            index.upsert(V1, rows(["b#0"]))
        assert tls.gate.count("Upsert") - before == 1, "what cannot pass is not tried again"
    index.close()


def test_a_server_that_comes_back_is_waited_for(tls: TlsServer) -> None:
    index = tls.open()
    index.create_version(V1, space_id="s", dim=DIM)
    tls.hang_up()
    back = threading.Timer(2, tls.listen)
    back.start()
    index.upsert(V1, rows(["a#0"]))
    back.join()
    assert index.count(V1) == 1
    index.close()


def test_a_write_may_take_longer_than_a_server_may_stay_away(tls: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tls.open()
    index.create_version(V1, space_id="s", dim=DIM)
    monkeypatch.setattr("indexers.milvus.connection.CALL_SECONDS", 0.5)
    before = tls.gate.count("Upsert")
    tls.gate.answer = lambda name: time.sleep(1.5) if name == "Upsert" else None
    index.upsert(V1, rows(["a#0"]))
    assert tls.gate.count("Upsert") - before == 1 and index.count(V1) == 1
    index.close()


def test_a_server_that_stays_away_is_given_up(tls: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tls.open()
    index.create_version(V1, space_id="s", dim=DIM)
    monkeypatch.setattr("indexers.milvus.connection.CALL_SECONDS", 1.0)
    tls.gate.answer = lambda name: (grpc.StatusCode.UNAVAILABLE, "going away") if name == "Upsert" else None
    began = time.monotonic()
    with pytest.raises(ResourceError) as caught:
        index.upsert(V1, rows([f"{n}#0" for n in range(5_000)]))
    assert time.monotonic() - began < 10 and "\n" not in str(caught.value)
    index.close()


def test_a_server_that_reads_back_a_partition_key_gets_one(tls: TlsServer, caplog: pytest.LogCaptureFixture) -> None:
    index = tls.open()
    with caplog.at_level(logging.INFO, "indexers.milvus.index"):
        index.create_version(V1, space_id="s", dim=DIM)
        index.create_version(V2, space_id="s", dim=DIM)
    said = [r.getMessage() for r in caplog.records if r.name == "indexers.milvus.index"]
    assert len(said) == 2 and all("with the team as partition key" in line for line in said)
    assert index._layout(V1).partition_key and tls.gate.count("Search") == 8, "proven once, with a search of each team"
    table = rows([f"{n}#0" for n in range(50)], team_id=[f"T{n % 5}" for n in range(50)])
    index.upsert(V1, table)
    index.upsert(V1, table)
    assert len(index.search(V1, vectors_of(table)[0], SearchRequest("T0", k=20))) == 10 and index.count(V1) == 50
    index.close()


def test_a_server_that_reads_back_no_layout_is_refused(tls: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tls.open()
    real = MilvusIndex.search
    monkeypatch.setattr(MilvusIndex, "search", lambda *a, **k: real(*a, **k)[1:])
    with pytest.raises(ReadBackError, match="finds 31 of its 32 rows; nothing was written") as caught:
        index.create_version(V1, space_id="s", dim=DIM)
    assert caught.value.exit_code == 5 and index.versions() == []
    index.close()


def test_writers_work_side_by_side_and_none_is_left_at_work(tls: TlsServer) -> None:
    index = tls.open(writers=4)
    index._can = capabilities_of("2.3.5", lite=False, writers=3)
    index.create_version(V1, space_id="s", dim=DIM)
    inside, most, guard = 0, 0, threading.Lock()
    real = index._connection.send

    def send(*arguments: Any, **options: Any) -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        real(*arguments, **options)
        with guard:
            inside -= 1

    index._connection.send = send  # type: ignore[method-assign]  # replaced, for this test's own index
    table = rows([f"{n:04d}#0" for n in range(7_500)])
    index.upsert(V1, table)
    assert most == 3 and inside == 0
    assert scanned(index)["chunk_id"].to_pylist() == sorted(table["chunk_id"].to_pylist())
    index.close()


@pytest.mark.parametrize(
    ("version", "lexical", "float16", "engine"),
    [
        ("v2.3.5-lite", False, False, "Milvus 2.3.5-lite"),
        ("2.4.15", False, True, "Milvus 2.4.15"),
        ("v2.5.0-beta", True, True, "Milvus 2.5.0-beta"),
        ("2.10.1", True, True, "Milvus 2.10.1"),
        ("3.0.0", True, True, "Milvus 3.0.0"),
        ("Zilliz Cloud Vector Database(Compatible with Milvus 2.4)", False, True, "Milvus 2.4"),
        ("milvus_lite-3.2.2", True, False, "Milvus Lite 3.2.2"),
        ("", False, False, "Milvus of unknown version"),
    ],
)
def test_what_a_version_can_do(version: str, lexical: bool, float16: bool, engine: str) -> None:
    can = capabilities_of(version, lite=False, writers=0)
    assert (can.engine, can.lexical, can.float16, can.conditional) == (engine, lexical, float16, False)
    assert can.writers == (1 if "Lite" in engine else 4)
    assert can.compacts == (engine != "Milvus 2.3.5-lite")


def test_words_are_indexed_unless_the_settings_say_no(tmp_path: Path) -> None:
    uri = str(tmp_path / "lite")
    for hybrid, version in ((None, V1), (False, V2), (True, "messages__v3")):
        index = open_index("milvus", uri, "messages", settings=Settings(hybrid=hybrid))
        index.create_version(version, space_id="s", dim=DIM)
        index.upsert(version, rows(["a#0", "b#0"], lexical=["the parcel lockers", "lunch at noon"]))
        index.close()
    index = MilvusIndex(uri, "messages")
    for version in (V1, "messages__v3"):
        assert [hit.chunk_id for hit in index.match(version, "parcel", SearchRequest("T0"))] == ["a#0"]
    with pytest.raises(ConfigError, match="messages__v2 on Milvus Lite .* no index of words; run `embedmill reindex`"):
        index.match(V2, "parcel", SearchRequest("T0"))
    assert [index.matches_words(version) for version in (V1, V2, "messages__v3")] == [True, False, True]
    assert "lexical" not in index._layout(V2).columns, "nor is what BM25 would see kept"
    assert len(index.search(V2, np.ones(DIM, np.float32), SearchRequest("T0", author_ids=["U0"]))) == 2
    index.close()


@pytest.mark.parametrize("words", [False, True])
def test_a_version_of_an_earlier_release_is_read_and_written(tmp_path: Path, words: bool) -> None:
    """With the columns that it has; where it has an index of words, that is over the text."""
    index = MilvusIndex(str(tmp_path / "lite"), "messages")
    first = Layout(words=words, columns=tuple(name for name in INDEX_ROW.names if name not in ADDED))
    index._create(V1, "space-a", DIM, first)
    assert index._describe(V1).layout == first
    table = rows(["a#0", "b#0"], text=["the parcel", "the lunch"], lexical="nothing", kind=["message", "file"])
    index.upsert(V1, table)
    index.create_version(V1, space_id="space-a", dim=DIM)
    asked = SearchRequest("T0", ["C0"], ["file"], since=1, until=2)
    (hit,) = index.search(V1, vectors_of(table)[0], asked)
    assert (hit.chunk_id, hit.author, hit.visibility) == ("b#0", "", "")
    assert index.fetch(V1, ["a#0", "b#0"], asked) == [replace(hit, score=0.0)]
    if words:
        assert [hit.chunk_id for hit in index.match(V1, "parcel", SearchRequest("T0"))] == ["a#0"]
    else:
        with pytest.raises(ConfigError, match="has no index of words"):
            index.match(V1, "parcel", SearchRequest("T0"))
    for name, request in (
        ("author_id", SearchRequest("T0", author_ids=["U0"])),
        ("thread_id", SearchRequest("T0", thread_id="a")),
        ("visibility", SearchRequest("T0", ["C0"], public=True)),
        ("mentions", SearchRequest("T0", mentions=["U0"])),
        ("has_file", SearchRequest("T0", has_file=True)),
        ("language", SearchRequest("T0", languages=["de"])),
    ):
        with pytest.raises(ConfigError, match=f"messages__v1 has no {name} to filter by; run `embedmill reindex`"):
            index.search(V1, vectors_of(table)[0], request)
    index.close()


def test_float16_goes_over_the_wire_as_its_bytes() -> None:
    table = rows(["a#0", "b#0"])
    halves = vectors_of(table).astype(np.float16)
    field = encode(table, halves)[-1]
    assert field.type == DataType.FLOAT16_VECTOR and field.vectors.dim == DIM
    assert np.array_equal(np.frombuffer(field.vectors.float16_vector, "<f2").reshape(2, DIM), halves)
    whole = encode(table, vectors_of(table))[-1]
    assert np.array_equal(np.array(whole.vectors.float_vector.data, np.float32), vectors_of(table).ravel())
    assert [f.field_name for f in encode(table, halves)] == table.column_names


def test_float16_is_refused_on_milvus_lite(tmp_path: Path) -> None:
    index = MilvusIndex(str(tmp_path / "lite"), "messages", Settings(storage="float16"))
    with pytest.raises(ConfigError, match='index.storage: Milvus Lite .* has no float16 .*; use "float32"'):
        index.create_version(V1, space_id="s", dim=DIM)
    index.close()


def test_an_empty_upsert_asks_nothing_of_the_engine(tls: TlsServer) -> None:
    index = tls.open()
    index.create_version(V1, space_id="s", dim=DIM)
    before = tls.gate.count("Upsert")
    assert index.upsert(V1, pa.Table.from_batches([], rows(["a"]).schema)) == [] and tls.gate.count("Upsert") == before
    index.close()


def test_the_command_line_searches_by_words_after_a_reindex(ran: Workspace) -> None:
    plain = ran.config.read_text()
    ran.config.write_text(plain + "[index]\nhybrid = false\n")
    assert ran.call("reindex").body["chunks"]["embedded"] == 0
    asked = ("search", "signing key", "--team", "T01")
    refused = ran.call(*asked, "--lexical")
    assert refused.code == 2 and "no index of words; run `embedmill reindex`" in refused.err
    assert refused.err.count("\n") == 1
    by_vectors = ran.call(*asked, "--hybrid").body
    assert by_vectors["words"] is False and by_vectors["hits"]
    ran.config.write_text(plain)
    assert ran.call("reindex").body["chunks"]["embedded"] == 0
    found = ran.call(*asked, "--hybrid")
    assert found.code == 0 and found.body["index"] == "messages__v3" and found.body["words"]
    assert "signing key" in found.body["hits"][0]["text"] and 0.3 < found.body["hits"][0]["score"] <= 1
    assert ran.verify().code == 0


def test_verify_allows_what_float16_loses_and_no_more(ran: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As no engine here keeps float16, the vectors that the index gives back are rounded to it."""
    real = MilvusIndex.fetch_vectors

    def rounded(index: MilvusIndex, version: str, ids: Any) -> dict[str, np.ndarray]:
        return {key: v.astype(np.float16).astype(np.float32) for key, v in real(index, version, ids).items()}

    monkeypatch.setattr(MilvusIndex, "fetch_vectors", rounded)
    differs = ran.verify()
    assert differs.code == 4 and differs.body["differences"]["vector"] > 0
    monkeypatch.setattr(MilvusIndex, "vector_error", lambda index, version: 2.0**-11)
    assert ran.verify().code == 0
    monkeypatch.setattr(MilvusIndex, "fetch_vectors", lambda *a: {k: v * 1.01 for k, v in rounded(*a).items()})
    assert ran.verify().code == 4
