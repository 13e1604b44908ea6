"""The protocol double is itself proven: by the real ``vespa`` command, by pyvespa's own clients, and by what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest
from requests.exceptions import HTTPError
from vespa.application import Vespa
from vespa.exceptions import VespaError
from vespa.retries import NO_RETRY
from vespacli import get_binary_path

from indexers.vespa.package import write_package
from tests.support.vespa_server import VespaServer

V1 = "messages__v1"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    write_package(folder, "messages", {V1: 4})
    return folder


@pytest.fixture
def server(vespa_server: VespaServer, package: Path) -> VespaServer:
    vespa_server.plan()
    vespa_server.deploy(package, empty=True)
    return vespa_server


def fields(name: str, version: int = 5, **more: Any) -> dict[str, Any]:
    return {"chunk_id": name, "team_id": "T1", "version": version, "text": f"text of {name}"} | more


# -- the real command line ---------------------------------------------------------------------------------------------


def vespa(server: VespaServer, home: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the ``vespa`` binary, with a home of its own."""
    environment = {
        "HOME": str(home),
        "VESPA_CLI_HOME": str(home),
        "VESPA_CLI_CACHE_DIR": str(home),
        "PATH": os.environ["PATH"],
    }
    ran = subprocess.run(
        [get_binary_path(), *arguments, "-t", server.uri, "-c", "never"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_the_real_command_feeds_gets_and_visits(server: VespaServer, tmp_path: Path) -> None:
    operations: list[dict[str, Any]] = [
        {
            "put": f"id:messages:{V1}::a/{n}#0",
            "condition": f"{V1}.version <= 5",
            "create": True,
            "fields": fields(f"a/{n}#0", vector={"values": [1, 2, 3, n]}),
        }
        for n in range(40)
    ]
    operations += [
        {
            "put": f"id:messages:{V1}::a/0#0",
            "condition": f"{V1}.version <= 4",
            "create": True,
            "fields": fields("old", 4),
        },
        {"update": f"id:messages:{V1}::a/1#0", "fields": {"text": {"assign": "changed"}}},
        {"remove": f"id:messages:{V1}::a/2#0"},
    ]
    feed = tmp_path / "feed.jsonl"
    feed.write_text("\n".join(map(json.dumps, operations)))
    server.plan("503", "429", "", "", "reset")  # of which the command itself sends all again
    code, out, err = vespa(server, tmp_path, "feed", str(feed))
    assert code == 0, err
    counts = json.loads(out)["http.response.code.counts"]
    assert (counts["200"], counts["412"], counts["429"], counts["503"]) == (42, 1, 1, 1)
    seen = server.seen()
    assert seen["reset"] == 1 and seen["http2"] >= 46 and "http1" not in seen, "the command feeds over HTTP/2"

    code, out, _ = vespa(server, tmp_path, "document", "get", f"id:messages:{V1}::a/1#0")
    got = json.loads(out)
    assert (code, got["fields"]["text"], got["fields"]["vector"]["values"]) == (0, "changed", [1.0, 2.0, 3.0, 1.0])
    code, _, err = vespa(server, tmp_path, "document", "get", f"id:messages:{V1}::a/2#0")
    assert code == 1 and "404" in err
    code, out, _ = vespa(server, tmp_path, "visit", "--field-set", f"{V1}:chunk_id,version", "--chunk-count", "7")
    assert code == 0
    documents = [json.loads(line) for line in out.splitlines()]
    assert {d["fields"]["chunk_id"] for d in documents} == {f"a/{n}#0" for n in range(40) if n != 2}
    assert all(d["fields"]["version"] == 5 for d in documents) and len(documents) == 39
    code, out, _ = vespa(
        server, tmp_path, "visit", "--selection", f'{V1}.text == "changed"', "--slices", "1", "--slice-id", "0"
    )
    assert [json.loads(line)["id"] for line in out.splitlines()] == [f"id:messages:{V1}::a/1#0"]
    code, out, _ = vespa(server, tmp_path, "document", "remove", f"id:messages:{V1}::a/1#0")
    assert code == 0 and len(server.documents(V1)) == 38
    code, out, _ = vespa(server, tmp_path, "query", f'select * from {V1} where team_id contains "T1"', "hits=2")
    assert code == 0 and json.loads(out)["root"]["fields"]["totalCount"] == 38


# -- pyvespa's own clients ---------------------------------------------------------------------------------------------


def test_pyvespas_synchronous_client(server: VespaServer) -> None:
    app = Vespa(server.uri)
    with app.syncio() as session:
        for n in range(25):
            done = session.feed_data_point(V1, f"{n}", fields(f"{n}", n, vector=[n, 0, 0, 1]), namespace="messages")
            assert (done.status_code, done.json["id"]) == (200, f"id:messages:{V1}::{n}")
        with pytest.raises((VespaError, HTTPError), match="Condition did not match"):
            session.feed_data_point(V1, "7", fields("old"), namespace="messages", condition=f"{V1}.version < 7")
        session.update_data(V1, "7", {"text": "new words"}, namespace="messages")
        assert session.get_data(V1, "7", namespace="messages").json["fields"]["text"] == "new words"
        assert session.update_data(V1, "none", {"text": "x"}, namespace="messages").status_code == 200
        assert session.get_data(V1, "none", namespace="messages").status_code == 404
        session.update_data(V1, "made", {"text": "x"}, create=True, namespace="messages")
        assert session.get_data(V1, "made", namespace="messages").json["fields"] == {"text": "x"}
        assert session.delete_data(V1, "made", namespace="messages").status_code == 200
        assert session.delete_data(V1, "made", namespace="messages").status_code == 200
        found = session.query({"yql": f"select * from {V1} where team_id contains 'T1'", "hits": 3})
        assert (found.number_documents_retrieved, len(found.hits)) == (25, 3)
    selection = f"{V1}.version >= 20"
    pages = [
        page
        for part in app.visit(
            "messages_content", V1, "messages", slices=3, selection=selection, wanted_document_count=2
        )
        for page in part
    ]
    assert {d["id"].rsplit(":", 1)[1] for page in pages for d in page.documents} == {str(n) for n in range(20, 25)}
    assert max(page.number_documents_retrieved for page in pages) == 2
    app.delete_all_docs("messages_content", V1, "messages", slices=2)
    assert server.documents(V1) == {}


def test_pyvespas_own_feeder_gets_every_status(server: VespaServer) -> None:
    answers: dict[str, int] = {}
    server.plan("429", "507", "503", "", "reset")
    Vespa(server.uri).feed_async_iterable(
        ({"id": str(n), "fields": fields(str(n))} for n in range(30)),
        schema=V1,
        namespace="messages",
        max_workers=4,
        callback=lambda answer, key: answers.__setitem__(key, answer.status_code),
        docv1_retry_policy=NO_RETRY,
    )
    assert {429, 503, 507, 599} <= set(answers.values()), "599 is pyvespa's for a connection that broke"
    assert server.seen()["most"] <= 4 and "http1" not in server.seen()
    Vespa(server.uri).feed_async_iterable(
        ({"id": str(n), "fields": fields(str(n))} for n in range(30)), schema=V1, namespace="messages"
    )
    assert len(server.documents(V1)) == 30


# -- what it refuses ---------------------------------------------------------------------------------------------------


Method = Literal["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"]


def ask(server: VespaServer, method: Method, path: str, body: Any = None, **params: Any) -> tuple[int, Any]:
    """A request of HTTP/1.1, its status and body."""
    import httpr

    with httpr.Client() as client:
        answer = client.request(method, server.uri + path, params=params or None, json=body or None)
        return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("method", "path", "params", "body", "status", "words"),
    [
        ("POST", "/document/v1/messages/messages__v7/docid/a", {}, {"fields": {}}, 400, "messages__v7 does not exist"),
        ("POST", f"/document/v1/messages/{V1}/docid/a", {}, {"fields": {"text": 3}}, 400, "not a string"),
        ("POST", f"/document/v1/messages/{V1}/docid/a", {}, {"fields": {"text": "\x01"}}, 400, "code point 0x1"),
        ("POST", f"/document/v1/messages/{V1}/docid/%01", {}, {"fields": {}}, 400, "code point 0x1"),
        ("POST", f"/document/v1/messages/{V1}/docid/a//b", {}, {"fields": {}}, 400, "path segments"),
        ("POST", f"/document/v1/messages/{V1}/docid/a", {}, {"fields": {"vector": [1, 2]}}, 400, "2 values"),
        ("POST", f"/document/v1/messages/{V1}/docid/a", {}, {"fields": {"version": 2**63}}, 400, "not of type long"),
        (
            "POST",
            f"/document/v1/messages/{V1}/docid/a",
            {"condition": f"{V1}.version < 3"},
            {"fields": {}},
            412,
            "not exist",
        ),
        (
            "POST",
            f"/document/v1/messages/{V1}/docid/a",
            {"condition": "x.version < 3"},
            {"fields": {}},
            400,
            "x.version",
        ),
        ("DELETE", f"/document/v1/messages/{V1}/docid/", {"cluster": "messages_content"}, None, 400, "selection"),
        ("DELETE", f"/document/v1/messages/{V1}/docid/", {"selection": "true"}, None, 400, "cluster"),
        ("GET", "/document/v1/", {}, None, 400, "cluster"),
        ("GET", "/document/v1/", {"cluster": "c"}, None, 400, "no content cluster 'c', only 'messages_content'"),
        ("GET", f"/document/v1/messages/{V1}/docid/", {"selection": f"{V1}.version % 2"}, None, 400, "selection"),
        ("GET", f"/document/v1/messages/{V1}/docid/", {"fieldSet": f"{V1}:nothing"}, None, 400, "field set"),
        ("GET", f"/document/v1/messages/{V1}/docid/", {"wantedDocumentCount": "0"}, None, 400, "positive"),
        ("GET", f"/document/v1/messages/{V1}/docid/a", {}, None, 404, ""),
        ("GET", "/search/", {"yql": "select * from messages__v7 where true"}, None, 400, "messages__v7"),
        ("GET", "/search/", {"yql": f"select * from {V1} where true", "hits": "1001"}, None, 400, "limit: 1000"),
        ("GET", "/search/", {"yql": f"select * from {V1} where true", "ranking": "none"}, None, 400, "rank profile"),
        ("GET", "/search/", {"yql": f"select * from {V1} where chunk_id contains 'a'"}, None, 400, "chunk_id"),
        ("GET", "/search/", {"yql": f"drop {V1}"}, None, 400, "not of the form"),
    ],
)
def test_it_refuses_what_vespa_would(
    server: VespaServer, method: Method, path: str, params: dict[str, str], body: Any, status: int, words: str
) -> None:
    got, answer = ask(server, method, path, body, **params)
    assert got == status
    assert words in json.dumps(answer, ensure_ascii=False)
    assert server.documents(V1) == {}


@pytest.mark.parametrize(
    ("selection", "matches"),
    [
        ("true", "abc"),
        ("false", ""),
        (V1, "abc"),
        ("messages__versions", ""),
        (f"{V1}.version <= 5", "ab"),
        (f"{V1}.version<5 or {V1}.version > 7", "ac"),
        (f"not ({V1}.version == 5)", "ac"),
        (f"{V1}.kind", "a"),
        (f"{V1}.kind == null", "bc"),
        (f"{V1}.kind < 'z'", "a"),
        (f"not {V1}.kind < 'z'", ""),  # a missing field makes the whole invalid
        (f"{V1}.kind != 'file'", "bc"),
        (f"{V1}.text = 'te*of ?'", "abc"),
        (f'{V1}.text == "text of \\x62"', "b"),
        (f"{V1}.version >= 5 and {V1}.team_id == 'T1' or {V1}.kind == 'file'", "abc"),
        ("id.specific == 'b'", "b"),
        (f"id == 'id:messages:{V1}::c'", "c"),
        ("id.namespace == 'other'", ""),
    ],
)
def test_its_selections(server: VespaServer, selection: str, matches: str) -> None:
    with Vespa(server.uri).syncio() as session:
        for name, version in (("a", 3), ("b", 5), ("c", 9)):
            more = {"kind": "file"} if name == "a" else {}
            session.feed_data_point(V1, name, fields(name, version, **more), namespace="messages")
    status, page = ask(server, "GET", f"/document/v1/messages/{V1}/docid/", selection=selection, wantedDocumentCount=9)
    assert status == 200
    assert "".join(sorted(d["fields"]["chunk_id"] for d in page["documents"])) == matches


def test_a_field_that_is_not_declared_is_ignored_and_said_so(server: VespaServer) -> None:
    import httpr

    with httpr.Client() as client:
        answer = client.post(
            f"{server.uri}/document/v1/messages/{V1}/docid/a", json={"fields": {"nothing": 1, "kind": "x"}}
        )
    assert (answer.status_code, answer.headers["x-vespa-ignored-fields"]) == (200, "true")
    assert server.documents(V1) == {f"id:messages:{V1}::a": {"kind": "x"}}
