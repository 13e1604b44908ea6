"""A state in an object store (SeaweedFS): every command does what it does over a folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.store import S3Store

from embedding.buckets import Bucket
from embedding.errors import ResourceError
from jobs.state.integrity import find_damage, rows_of
from jobs.state.object_path import ObjectPath, _client
from jobs.state.state_folder import scratch_of
from jobs.state.storage import sizes_below
from jobs.state.store import State
from tests.support.object_store import BUCKET, Asked, Moto, Proxy, Store, Weed
from tests.support.paths import BY_SPARK, ROOT
from tests.support.workspace import TEAM, Ran, Workspace, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here")


class InStore(Workspace):
    """A workspace whose state is in a store."""

    def __init__(self, root: Path, store: Store) -> None:
        super().__init__(root)
        prefix = f"states/{uuid.uuid4().hex}"
        self.state = store.path(prefix)
        self.config.write_text(self.config.read_text() + store.config(prefix))


@pytest.fixture
def space(tmp_path: Path, weed: Weed) -> Iterator[InStore]:
    made = InStore(tmp_path / "ws", weed)
    yield made
    assert not (made.root / "s3:").exists()


def test_a_life_in_a_store(space: InStore) -> None:
    first = space.run()
    assert (first.code, counts(first)) == (0, {"embedded": 8}), first
    again = space.run()
    assert (again.code, counts(again), again.body["chunks"]["unchanged"]) == (0, {}, 8), again
    assert space.verify().code == 0
    space.day("general", [message(0, "The lockers are open"), *space.messages("general")[1:3]])
    changed = space.run()
    assert (changed.code, counts(changed)) == (0, {"embedded": 1, "deleted": 1}), changed
    space.rename("C2", "random", "chatter")
    renamed = space.run()
    assert (renamed.code, counts(renamed)) == (0, {"updated": 2}), renamed
    hits = space.call("search", "lockers", "--team", TEAM).body["hits"]
    assert any(hit["text"] == "The lockers are open" for hit in hits)
    status = space.call("status").body
    assert status["tables"]["chunks"] == 7
    reindexed = space.call("reindex", "--activate")
    assert reindexed.code == 0, reindexed
    assert space.call("rollback").code == 0
    assert space.verify().code == 0
    assert space.call("gc").code == 0
    purged = space.call("purge", "--team", TEAM, "--channel", "C2")
    assert purged.code == 0 and purged.body["removed"]["chunks"] == 2, purged
    assert space.verify().code == 0
    last = space.run()
    assert (last.code, counts(last), last.body["chunks"]["total"]) == (0, {}, 5), last


@pytest.mark.long
def test_both_engines_see_the_same(space: InStore) -> None:
    space.run()
    space.config.write_text(space.config.read_text().replace("[spark]\n", BY_SPARK))
    space.day("general", [message(0, "The lockers are open"), *space.messages("general")[1:3]])
    changed = space.run()
    assert (changed.code, counts(changed)) == (0, {"embedded": 1, "deleted": 1}), changed
    assert space.verify().code == 0


def test_a_purged_text_is_in_no_object(space: InStore) -> None:
    space.day("random", [message(5, "canary4711 sits in the harbour")])
    assert space.run().code == 0
    assert State(space.state).count("chunks") == 7
    purged = space.call("purge", "--team", TEAM, "--channel", "C2")
    assert purged.body["storage"]["tables"]["state"] == "removed", purged
    for key in sizes_below(space.state):
        data = (space.state / key).read_bytes()
        assert b"canary4711" not in data, key
    texts = State(space.state).read("chunks", ["text"])["text"].to_pylist()
    assert not any("canary" in text for text in texts)
    assert not [key for key in sizes_below(space.state) if key.startswith("work/")]
    scratch = [path for path in scratch_of(space.state).rglob("*") if path.is_file()]
    assert not [path for path in scratch if b"canary4711" in path.read_bytes()]


def test_a_purge_says_where_the_bucket_keeps_former_versions(space: InStore, monkeypatch: pytest.MonkeyPatch) -> None:
    space.run()
    monkeypatch.setattr("jobs.maintenance.erase.keeps_versions", lambda root: True)
    purged = space.call("purge", "--team", TEAM, "--channel", "C2")
    assert purged.body["storage"]["tables"]["state"] == "removed, and left to the store as former versions", purged


def test_a_purge_leaves_no_file_of_the_rows_that_it_took(space: InStore) -> None:
    space.run()
    before = {key for key in sizes_below(space.state / "chunks") if key.endswith(".parquet")}
    space.call("purge", "--team", TEAM, "--channel", "C1")
    after = {key for key in sizes_below(space.state / "chunks") if key.endswith(".parquet")}
    assert not before & after, "the files that held the texts are gone"


def test_a_damaged_table_is_named_and_made_again(space: InStore) -> None:
    space.run()
    [file, *_] = sorted((space.state / "vectors").rglob("part-*.parquet"))
    file.unlink()
    broken = space.verify()
    assert broken.code != 0 and str(file) in broken.body["error"]["message"] + broken.err
    assert space.verify("--repair").code == 0
    assert space.verify().code == 0
    again = space.run()
    assert (again.code, counts(again)) == (0, {}), again


def test_a_store_that_is_away_is_no_damage(space: InStore, weed: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for a file that does not decode, which a repair would have removed."""
    space.run()
    away = ObjectPath(Bucket(BUCKET, "http://127.0.0.1:9", allow_http=True), space.state.key)
    quick = S3Store(
        BUCKET, endpoint="http://127.0.0.1:9", client_options={"allow_http": True}, retry_config={"max_retries": 0}
    )
    monkeypatch.setattr("jobs.state.object_path._client", lambda bucket: quick)
    for look in (lambda: rows_of(away / "vectors" / "part-1.parquet"), lambda: find_damage(away)):
        with pytest.raises(ResourceError):
            look()


def test_nothing_of_a_state_is_in_a_folder(space: InStore) -> None:
    space.run()
    made = {path.name for path in space.root.iterdir()}
    assert made <= {"export", "files", "embedmill.toml", "state"}
    assert {path.name for path in (space.root / "state").iterdir()} <= {"milvus.db"}, "the index alone"


def test_a_prefix_that_holds_something_else_is_refused(space: InStore) -> None:
    (space.state / "report.csv").write_bytes(b"1")
    refused = space.run()
    assert refused.code == 2 and "not empty and not embedmill's" in refused.err
    assert list(sizes_below(space.state)) == ["report.csv"]


def test_a_bucket_that_is_not_there_is_one_line(space: InStore) -> None:
    space.config.write_text(space.config.read_text().replace("s3://lake/", "s3://no-such-bucket/"))
    refused = space.run()
    assert refused.code == 2 and refused.err.startswith("embedmill: s3://no-such-bucket/"), refused
    assert "there is no bucket 'no-such-bucket'" in refused.err and refused.err.count("\n") == 1, refused


def test_a_store_that_disregards_conditions_is_refused_before_any_work(tmp_path: Path, moto: Moto) -> None:
    def disregarding(asked: Asked) -> str:
        if asked.method == "PUT" and "/proof/" in asked.path:
            asked.headers = {k: v for k, v in asked.headers.items() if k.lower() != "if-none-match"}
        return ""

    with Proxy(moto, disregarding) as store:
        space = InStore(tmp_path / "ws", store)
        refused = space.run()
        assert refused.code == 2 and "If-None-Match" in refused.err, refused
        assert not [key for key in sizes_below(space.state) if "_delta_log" in key]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ('uri = "s3://lake"', "s3://bucket/prefix"),
        ('uri = "gs://lake/state"', "s3://bucket/prefix"),
        ('uri = "s3://lake/../state"', "s3://bucket/prefix"),
        ('uri = "s3://lake/a b"', "s3://bucket/prefix"),
    ],
)
def test_an_address_that_is_none_is_refused(space: InStore, changed: str, says: str) -> None:
    text = space.config.read_text()
    before = next(line for line in text.splitlines() if line.startswith('uri = "s3://'))
    space.config.write_text(text.replace(before, changed))
    refused = space.run()
    assert refused.code == 2 and "state.uri" in refused.err and says in refused.err, refused


def test_plain_http_is_asked_for(space: InStore) -> None:
    space.config.write_text(space.config.read_text().replace("allow_http = true\n", ""))
    refused = space.run()
    assert refused.code == 2 and "state.storage" in refused.err and "allow_http" in refused.err, refused


def command(space: InStore, *arguments: str) -> Ran:
    """A command in a process of its own: parts of deltalake hold the interpreter, and the proxy needs it too."""
    words = [sys.executable, "-m", "jobs.cli", *arguments, "--config", str(space.config), "--json"]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=space.root, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return Ran(done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr)


@pytest.mark.long
def test_a_commit_whose_answer_was_lost_is_neither_lost_nor_doubled(tmp_path: Path, weed: Weed) -> None:
    """The first answer to each commit is lost: of creations, appends, merges, deletes and vacuums."""
    lost: set[str] = set()

    def lose(asked: Asked) -> str:
        commit = asked.method == "PUT" and "_delta_log/" in asked.path and asked.path.endswith(".json")
        if not commit or asked.path in lost:
            return ""
        lost.add(asked.path)
        return "lose"

    with Proxy(weed, lose) as store:
        space = InStore(tmp_path / "ws", store)
        first = command(space, "run")
        assert (first.code, counts(first)) == (0, {"embedded": 8}), first
        assert len(lost) > 10
        space.day("general", space.messages("general")[1:])
        changed = command(space, "run")
        assert (changed.code, counts(changed)) == (0, {"deleted": 1}), changed
        purged = command(space, "purge", "--team", TEAM, "--channel", "C2")
        assert purged.code == 0 and purged.body["removed"]["chunks"] == 2, purged
        assert command(space, "verify").code == 0
        rows = State(space.state).read("chunks", ["chunk_id"])["chunk_id"].to_pylist()
        assert len(rows) == len(set(rows)) == 5


def test_a_store_that_the_environment_names_is_enough(
    space: InStore, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at AWS itself, where no endpoint is configured: a run, another one, and a purge."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.uri)
    space.config.write_text(re.sub("endpoint = .*\n", "", space.config.read_text()))
    first, again = space.run(), space.run()
    assert (first.code, counts(first), again.code, counts(again)) == (0, {"embedded": 8}, 0, {}), first
    assert space.call("purge", "--team", TEAM, "--channel", "C1").code == 0
    assert space.verify().code == 0 and moto.path(space.state.key).is_dir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("/states/", "-s/states/"), "there is no bucket 'lake-s' at http://"),
        (("uri", "uri"), "denies access (SignatureDoesNotMatch)"),
    ],
)
def test_what_a_store_refuses_is_a_wrong_configuration(
    space: InStore, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: str
) -> None:
    """No task that is retried would do better; and nothing else is blamed for it."""
    space.config.write_text(space.config.read_text().replace(*change))
    if change[0] == change[1]:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "pa55w0rd")
    monkeypatch.setattr("jobs.state.object_path._client", _client.__wrapped__)
    refused = space.run()
    assert refused.code == 2 and said in refused.err and "pa55w0rd" not in refused.err
    checks = {one["name"]: one for one in space.call("doctor").body["checks"]}
    assert said in checks["state"]["detail"] and checks["sources[0]"]["status"] == "ok" and "model" not in checks
    copied = space.call("state", "copy", f"s3://{BUCKET}-s/x", str(space.root / "copy"))
    assert copied.code == 2 and ("no bucket" in copied.err or said in copied.err)


def test_rights_on_the_prefix_alone_are_enough(tmp_path: Path, moto: Moto) -> None:
    """As a role of least rights has them: a state looked above its prefix, which is denied there."""
    prefix: list[str] = []

    def elsewhere(asked: Asked) -> str:
        one = asked.path.removeprefix(f"/{BUCKET}")
        return "403" if one.startswith("/") and len(one) > 1 and not one.startswith(f"/{prefix[0]}/") else ""

    with Proxy(moto, elsewhere) as store:
        space = InStore(tmp_path / "ws", store)
        prefix.append(space.state.key)
        ran = space.run()
        assert (ran.code, counts(ran)) == (0, {"embedded": 8}), ran


def test_a_state_does_not_begin_in_another(space: InStore) -> None:
    """Whoever copies the outer one, or removes it, takes the inner one for a part of it."""
    space.run()
    inner = space.config.read_text().replace(f'{space.state.key}"', f'{space.state.key}/inner/one"')
    space.config.write_text(inner)
    refused = space.run()
    assert refused.code == 2 and f"lies in another state, {space.state}; give a place of its own" in refused.err
