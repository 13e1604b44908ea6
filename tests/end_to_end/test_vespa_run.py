"""Whole commands with an index in Vespa, over its protocol double: from no application to versions that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding.errors import ConfigError
from indexers.vespa.index import VespaIndex
from indexers.vespa.package import read_dims, write_package
from tests.support.vespa_server import VespaServer
from tests.support.workspace import TEXTS, Workspace, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here")

V1, V2, V3 = (f"messages__v{n}" for n in (1, 2, 3))


@pytest.fixture
def space(workspace: Workspace, vespa_server: VespaServer, tmp_path: Path) -> Workspace:
    """A workspace whose Vespa has another application."""
    write_package(tmp_path / "other", "other", {"other__v1": 4})
    vespa_server.plan()
    vespa_server.deploy(tmp_path / "other", empty=True)
    config = workspace.config.read_text()
    workspace.config.write_text(config + f'[index]\nkind = "vespa"\nuri = "{vespa_server.uri}"\n')
    return workspace


def test_a_life_of_an_index(space: Workspace, vespa_server: VespaServer) -> None:
    refused = space.run()
    assert refused.code == 2 and "embedmill vespa-package" in refused.err and refused.err.count("\n") == 1

    package = space.root / "package"
    made = space.call("vespa-package", "--out", str(package), "--versions", "3")
    assert (made.code, made.body["versions"]) == (0, {V1: 384, V2: 384, V3: 384})
    vespa_server.deploy(package)

    vespa_server.plan(*["", "", "503", "", "429", "reset", "", "lost"] * 5)
    first = space.run()
    assert first.code == 0 and first.body["index_rows"] == {"upserted": 8, "deleted": 0, "after": 8}
    assert vespa_server.seen()["reset"], "faults were met on the way"
    vespa_server.plan()
    assert space.run().body["chunks"]["unchanged"] == 8 and space.verify().code == 0
    hits = space.call("search", TEXTS[2], "--team", "T01", "--kind", "message").body
    assert (hits["index"], hits["hits"][0]["text"], hits["hits"][0]["channel_id"]) == (V1, TEXTS[2], "C1")

    index = VespaIndex(vespa_server.uri, "messages")
    lost = hits["hits"][0]["chunk_id"]
    index.delete(V1, [lost])
    damaged = space.verify("--repair")
    assert (damaged.code, damaged.body["differences"]["missing"], damaged.body["repaired"]) == (0, 1, 1)
    space.day("general", [message(0, "The lockers moved to the station"), *space.messages("general")[1:3]])
    edited = space.run()
    assert counts(edited) == {"embedded": 1, "deleted": 1} and edited.body["index_rows"]["after"] == 7

    built = space.call("reindex")
    assert built.code == 0 and (built.body["index"], built.body["activated"]) == (V2, True), built.err
    assert built.body["gate"]["passed"] and built.body["chunks"]["embedded"] == 0
    assert index.live() == V2 and space.verify().code == 0
    back = space.call("rollback")
    assert (back.code, back.body["index"], index.live()) == (0, V1, V1)

    removed = space.call("purge", "--team", "T01", "--ids", "T01/f/notes.txt")
    assert removed.body["removed"]["index"] == 2 and index.count(V1) == index.count(V2) == 6
    index.create_version(V3, space_id=index.space_of(V2), dim=384)
    index.point_alias(V3)
    dropped = space.call("gc")
    assert (dropped.body["kept"], dropped.body["dropped"]) == ([V2, V3], [V1])
    assert vespa_server.documents(V1) == {} and index.versions() == [V2, V3]
    index.close()

    # The type of the dropped version can go, and there is room for the next ones.
    again = space.call("vespa-package", "--out", str(package))
    assert again.body["changed"] == [V1] and list(again.body["versions"]) == [V2, V3, "messages__v4", "messages__v5"]
    assert "schema-removal" in (package / "validation-overrides.xml").read_text()
    vespa_server.deploy(package)
    assert space.call("status").body["index"]["live"] == V3


def test_a_package_before_there_is_a_vespa(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.vespa.client.READ_SECONDS", 0.2)
    text = space.config.read_text()
    space.config.write_text(text[: text.index("[index]")] + '[index]\nkind = "vespa"\nuri = "http://127.0.0.1:1"\n')
    for _ in range(2):
        made = space.call("vespa-package", "--out", str(space.root / "package"))
        assert (made.code, made.body["answered"], made.body["versions"]) == (0, False, {V1: 384, V2: 384})
    assert read_dims(space.root / "package", "messages") == {V1: 384, V2: 384}
    assert not (space.root / "package" / "validation-overrides.xml").exists()


def test_a_model_of_another_dimension_gets_room_beside_what_is_in_use(
    space: Workspace, vespa_server: VespaServer
) -> None:
    package = space.root / "package"
    write_package(package, "messages", {V1: 384, V2: 384})
    vespa_server.deploy(package, empty=True)
    index = VespaIndex(vespa_server.uri, "messages")
    index.create_version(V1, space_id="old", dim=384)
    remote = '[model]\nbackend = "http"\n[model.remote]\nmodel = "m"\nurl = "http://127.0.0.1:1"\ndim = 256\nmax_tokens = 256\n'
    space.config.write_text(space.config.read_text().replace('[model]\nbackend = "hash"\n', remote))
    made = space.call("vespa-package", "--out", str(package))
    assert made.body["versions"] == {V1: 384, V2: 256, V3: 256} and made.body["changed"] == [V2]
    assert "tensor-type-change" in (package / "validation-overrides.xml").read_text()
    with pytest.raises(ConfigError, match="messages__v2 is not deployed with 256 dimensions"):
        index.create_version(V2, space_id="new", dim=256)
    vespa_server.deploy(package)
    index.create_version(V2, space_id="new", dim=256)
    assert index.dims() == {V1: 384, V2: 256}
    index.close()


def test_only_vespa_has_a_package_and_its_settings_name_the_key(workspace: Workspace) -> None:
    refused = workspace.call("vespa-package", "--out", str(workspace.root / "package"))
    assert refused.code == 2 and "index.kind" in refused.err
    config = workspace.config.read_text()
    for lines, key in (
        ('kind = "vespa"\nuri = "state/vespa"', "index.uri"),
        ('kind = "vespa"\nuri = "http://127.0.0.1:1"\nstorage = "float16"', "index.storage"),
    ):
        workspace.config.write_text(f"{config}[index]\n{lines}\n")
        refused = workspace.call("status")
        assert refused.code == 2 and key in refused.err
