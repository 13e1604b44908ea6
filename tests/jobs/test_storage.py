"""The storage seam: one contract for a folder, SeaweedFS and moto's S3; and what a network does to requests."""

from __future__ import annotations

import pickle
import threading
import uuid
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from embedding.buckets import Bucket
from embedding.errors import ConfigError, EmbedmillError, RefusedError, ResourceError
from jobs.state.object_path import ObjectPath, _client
from jobs.state.staging import begin_staging, commit_staged, rows_in, staged, write_staged
from jobs.state.storage import (
    StatePath,
    create_file,
    data_address,
    keeps_versions,
    new_file,
    prove,
    read_parquet,
    remove_all,
    replace_file,
    sizes_below,
    sizes_of,
)
from tests.support.object_store import BUCKET, Asked, Moto, Proxy, Store, Weed


@pytest.fixture(params=["folder", "weed", "moto"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StatePath:
    """An empty place of each kind."""
    if request.param == "folder":
        return tmp_path
    store: Store = request.getfixturevalue(request.param)
    return store.path(f"contract/{uuid.uuid4().hex}")


# -- small files -------------------------------------------------------------------------------------------------------


def test_a_file_is_what_was_written_last(place: StatePath) -> None:
    file = place / "tables.json"
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    replace_file(file, b"one")
    replace_file(file, "zwei \N{SNOWMAN}".encode())
    assert (file.read_text(), file.stat().st_size, file.exists()) == ("zwei \N{SNOWMAN}", 8, True)
    assert file.name == "tables.json" and str(file.parent) == str(place)
    file.unlink()
    assert not file.exists()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.unlink()


def test_of_several_that_create_one_file_one_succeeds(place: StatePath) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        if create_file(place / "one", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and (place / "one").read_text() == str(won[0])
    assert not create_file(place / "one", b"later") and (place / "one").read_text() == str(won[0])


def test_a_file_that_is_written_in_pieces_is_there_when_it_is_whole(place: StatePath) -> None:
    with new_file(place / "whole") as sink:
        for _ in range(3):
            sink.write(b"x" * 4_000_000)
    assert (place / "whole").stat().st_size == 12_000_000
    with pytest.raises(ZeroDivisionError), new_file(place / "half") as sink:
        sink.write(b"x" * 12_000_000)
        _ = 1 // 0
    assert isinstance(place, Path) or not (place / "half").exists()


# -- folders -----------------------------------------------------------------------------------------------------------


def filled(place: StatePath) -> None:
    for name in ("a.json", "b=1/c.parquet", "b=1/d.parquet", "b=10/c.parquet", "deep/er/e.json"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(place / name, name.encode())


def test_a_folder_tells_what_is_in_it_and_no_neighbour_s(place: StatePath) -> None:
    filled(place)
    assert sorted(path.name for path in place.iterdir()) == ["a.json", "b=1", "b=10", "deep"]
    assert [path.name for path in place.glob("*.json")] == ["a.json"]
    parquet = [str(path.relative_to(place)) for path in place.rglob("*.parquet")]  # type: ignore[arg-type]
    assert sorted(parquet) == ["b=1/c.parquet", "b=1/d.parquet", "b=10/c.parquet"]
    assert sizes_below(place / "b=1") == {"c.parquet": 13, "d.parquet": 13}
    assert sizes_of(place, ["a.json", "b=1/c.parquet", "none"]) == {"a.json": 6, "b=1/c.parquet": 13, "none": None}
    assert sizes_of(place, []) == {}
    assert (place / "b=1").is_dir() and (place / "b=1").exists() and not (place / "b").exists()
    assert not (place / "b").is_dir() and not (place / "a.json").is_dir()


def test_a_folder_goes_with_all_that_is_in_it_and_nothing_else(place: StatePath) -> None:
    filled(place)
    remove_all(place / "b=1")
    remove_all(place / "never")
    assert sorted(sizes_below(place)) == ["a.json", "b=10/c.parquet", "deep/er/e.json"]
    remove_all(place)
    assert not sizes_below(place)


def test_more_than_one_listing_s_worth(place: StatePath) -> None:
    for number in range(1_100):
        replace_file(place / f"{number:04}", b"", durable=False)
    assert len(sizes_below(place)) == 1_100
    remove_all(place)
    assert not sizes_below(place)


def test_a_path_may_be_sent_to_a_worker(place: StatePath) -> None:
    replace_file(place / "a", b"1")
    arrived = pickle.loads(pickle.dumps(place))
    assert arrived == place and (arrived / "a").read_bytes() == b"1"


# -- staged rows -------------------------------------------------------------------------------------------------------

ROWS = pa.table({"shard": ["a", "a", "b", "b", "b"], "n": [1, 2, 3, 4, 5]})


def test_staged_rows_are_those_of_the_list(place: StatePath) -> None:
    folder = place / "work" / "rows"
    assert rows_in(folder) == 0 and staged(folder).files == ()
    begin_staging(folder)
    files = list(write_staged(ROWS.to_batches(), folder, ROWS.schema, by="shard", most=2))
    assert rows_in(folder) == 0, "nothing is staged before its list"
    commit_staged(folder, files)
    twice = list(write_staged(ROWS.to_batches(), folder, ROWS.schema, by="shard"))
    assert len(twice) == 2, "a task that was begun again leaves files that no list names"
    found = staged(folder)
    assert [file.rows for file in found.files] and found.rows == rows_in(folder) == 5
    assert found.folders == ["shard=a", "shard=b"] and len(found.within("shard=b").files) == 2
    assert sorted(found.within("shard=b").table()["n"].to_pylist()) == [3, 4, 5]
    assert sorted(found.data(pa.schema([("n", pa.int64())])).to_table()["n"].to_pylist()) == [1, 2, 3, 4, 5]
    begin_staging(folder)
    assert rows_in(folder) == 0 and not sizes_below(folder)


def test_rows_that_a_worker_wrote_elsewhere_are_missed(place: StatePath) -> None:
    here, elsewhere = place / "here", place / "elsewhere"
    for folder in (here, elsewhere):
        begin_staging(folder)
    files = list(write_staged(ROWS.to_batches(), elsewhere, ROWS.schema))
    with pytest.raises(EmbedmillError, match="a worker wrote 5 rows that are not in"):
        commit_staged(here, files)


def test_parquet_is_read_by_column_and_row_group(place: StatePath) -> None:
    import pyarrow.parquet as pq

    with new_file(place / "t.parquet") as sink:
        pq.write_table(ROWS, sink, row_group_size=2)
    assert read_parquet(place / "t.parquet", ["n"]).to_pydict() == {"n": [1, 2, 3, 4, 5]}
    system, address = data_address(place / "t.parquet")
    data = ds.dataset([address], filesystem=system, format="parquet")
    assert data.to_table(filter=ds.field("n") > 3)["n"].to_pylist() == [4, 5]


# -- proof -------------------------------------------------------------------------------------------------------------


def test_a_good_place_is_proven_and_left_as_it_was(place: StatePath) -> None:
    prove(place)
    assert not sizes_below(place)


def disregarding(asked: Asked) -> str:
    asked.headers.pop("if-none-match", None)
    asked.headers.pop("If-None-Match", None)
    return ""


def test_a_store_that_disregards_conditions_is_refused_by_name(moto: Moto) -> None:
    with Proxy(moto, disregarding) as store, pytest.raises(ConfigError, match="told to create only .If-None-Match."):
        prove(store.path("disregards"))


def test_a_store_that_hides_what_was_just_written_is_refused(moto: Moto) -> None:
    def blind(asked: Asked) -> str:
        if asked.method == "GET" and "list-type" in asked.path:
            asked.path = asked.path.replace("proof", "none")
        return ""

    with Proxy(moto, blind) as store, pytest.raises(ConfigError, match="does not list"):
        prove(store.path("blind"))


def test_a_store_whose_first_answer_is_lost_is_no_bad_one(moto: Moto) -> None:
    def lose(asked: Asked) -> str:
        mine = asked.method == "PUT" and "/proof/" in asked.path
        return "lose" if mine and sum(one.path == asked.path for one in proxy.seen) == 1 else ""

    proxy = Proxy(moto, lose)
    with proxy as store:
        prove(store.path("honest"))
    assert sum(one.method == "PUT" for one in proxy.seen) == 3


@pytest.mark.parametrize("path", ["nobody:1", "127.0.0.1:1"])
def test_a_store_that_does_not_answer_is_one_line(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore.store

    monkeypatch.setattr(
        "jobs.state.object_path._client",
        lambda bucket: obstore.store.S3Store(
            bucket.name,
            endpoint=bucket.endpoint,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        ),
    )
    with pytest.raises(
        ResourceError, match="s3://lake/x: the object store at http://.* cannot be reached; look"
    ) as failed:
        ObjectPath(Bucket("lake", f"http://{path}", allow_http=True), "x").read_bytes()
    assert "\n" not in str(failed.value) and "only-for-tests" not in str(failed.value)


@pytest.mark.parametrize(("status", "keeps"), [("", False), ("Enabled", True), ("Suspended", False)])
def test_a_bucket_that_keeps_former_versions_is_known(moto: Moto, status: str, keeps: bool) -> None:
    bucket, client = f"versions-{status.lower() or 'never'}", moto.client()
    client.create_bucket(Bucket=bucket)
    for state in ["Enabled", status] if status else []:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": state})
    root = ObjectPath(Bucket(bucket, moto.uri, allow_http=True), "state")
    assert keeps_versions(root) == keeps and not sizes_below(root)


def test_a_folder_keeps_none(tmp_path: Path) -> None:
    assert not keeps_versions(tmp_path)


# -- a network ---------------------------------------------------------------------------------------------------------


def test_requests_that_are_refused_for_a_while_are_asked_again(moto: Moto) -> None:
    with Proxy(moto, lambda asked: "503" if asked.number % 3 else "") as store:
        path = store.path("busy")
        replace_file(path / "a", b"1")
        assert (path / "a").read_bytes() == b"1" and create_file(path / "b", b"2") and len(sizes_below(path)) == 2


def test_an_answer_to_a_creation_that_is_lost_is_not_taken_for_another_s(moto: Moto) -> None:
    """The client asks again and is told that the object is there: whose it is is for the caller to look up."""

    def lose(asked: Asked) -> str:
        mine = asked.method == "PUT" and unquote(asked.path).endswith("lost/mine")
        return "lose" if mine and sum(one.path == asked.path for one in proxy.seen) == 1 else ""

    proxy = Proxy(moto, lose)
    with proxy as store:
        assert not create_file(store.path("lost/mine"), b"me")
        assert store.path("lost/mine").read_bytes() == b"me"


@pytest.mark.parametrize(
    ("bucket", "environment", "said"),
    [
        ("nobody-s", {}, "there is no bucket 'nobody-s' at http://"),
        (BUCKET, {"AWS_SECRET_ACCESS_KEY": "pa55w0rd"}, "denies access (SignatureDoesNotMatch); look at the cred"),
        (BUCKET, {"AWS_ACCESS_KEY_ID": "pa55w0rd"}, "denies access (InvalidAccessKeyId); look at the credentials"),
        (BUCKET, {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_ACCESS_KEY_ID": None}, "or no credentials in it"),
        (
            BUCKET,
            {"AWS_PROFILE": "pa55w0rd", "AWS_ACCESS_KEY_ID": None},
            "AWS_PROFILE: AWS's files have no such profile, or no cred",
        ),
    ],
)
def test_a_refusal_says_what_to_mend(
    weed: Weed, monkeypatch: pytest.MonkeyPatch, bucket: str, environment: dict[str, str | None], said: str
) -> None:
    """The same with every other run, so it ends with the exit code of a wrong configuration."""
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    _client.cache_clear()
    with pytest.raises(RefusedError) as failed:
        list(ObjectPath(Bucket(bucket, weed.uri, allow_http=True), "x").iterdir())
    _client.cache_clear()
    assert said in str(failed.value) and "pa55w0rd" not in str(failed.value) and failed.value.exit_code == 2


def test_a_right_that_is_missing_is_named(moto: Moto) -> None:
    """moto's server checks no rights: what is before it answers as AWS does."""
    with Proxy(moto, lambda asked: "403") as store:
        path = store.path("x")
        asked = {"s3:PutObject": lambda: path.create(b"1"), "s3:ListBucket": path.is_dir, "s3:GetObject": path.exists}
        for right, ask in asked.items():
            with pytest.raises(RefusedError, match=r"denies access \(.*; it takes the right " + right):
                ask()


def test_a_store_of_aws_needs_no_endpoint(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client refuses an endpoint that is None, so that no state at AWS itself could be opened."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.uri)  # the environment's, as there is no AWS here
    path = ObjectPath(Bucket(BUCKET, allow_http=True), "of-aws/x")
    path.write_bytes(b"1")
    assert path.read_bytes() == moto.path("of-aws/x").read_bytes() == b"1"


def test_an_open_line_is_taken_only_where_it_is_allowed(moto: Moto) -> None:
    with pytest.raises(RefusedError, match="set state.storage.allow_http = true"):
        ObjectPath(Bucket(BUCKET, moto.uri), "x").is_dir()
