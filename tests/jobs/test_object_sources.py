"""Sources and models in an object store: read as from a folder, whatever their keys, and never half of two versions."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import socket
import sys
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.response import StreamingBody

from embedding import buckets
from embedding.buckets import Bucket, Prefix
from embedding.errors import SourceError
from embedding.records import Document, Record, Rejected
from jobs.config import load_config
from jobs.sources import open_sources
from jobs.sources.base import Listing, ReadLimits, Root, Source, SourceContext
from jobs.sources.files import FilesSource
from jobs.sources.slack_export import SlackExport, _open_zip
from jobs.sources.table.batch import ObjectName
from jobs.sources.table.ndjson import JsonData
from tests.support import tables
from tests.support.delta_log import DeltaLog
from tests.support.object_store import BUCKET, Moto, Store
from tests.support.tables import MAPPED, lines, rows, write_lines, write_parquet
from tests.support.workspace import TEAM, Workspace, counts, message

LIMITS = ReadLimits(3, 640, 2_000_000)


def prefix(store: Store, key: str = "") -> Prefix:
    """A prefix of its own in a store."""
    return Prefix(Bucket(BUCKET, store.uri, allow_http=True), key or f"sources/{uuid.uuid4().hex}")


def put(root: Prefix, name: str, data: bytes) -> None:
    client = Store(root.bucket.endpoint).client()
    client.put_object(Bucket=BUCKET, Key=root.start + name if name else root.key, Body=data)


def remove(root: Prefix, name: str) -> None:
    Store(root.bucket.endpoint).client().delete_object(Bucket=BUCKET, Key=root.start + name)


def uploaded(store: Store, place: Path) -> Prefix:
    """A copy of a folder or a file."""
    if place.is_file():
        root = prefix(store, f"sources/{uuid.uuid4().hex}/{place.name}")
        put(root, "", place.read_bytes())
        return root
    root = prefix(store)
    for file in place.rglob("*"):
        if file.is_file():
            put(root, file.relative_to(place).as_posix(), file.read_bytes())
    return root


def files(root: Root) -> Source:
    return FilesSource(SourceContext(root, "files", "", LIMITS), team_id="T1", channel_id="C1", max_bytes=10_000)


def export(root: Root) -> Source:
    return SlackExport(root, source_id="export", team_id="T1", limits=LIMITS)


def table(format: str) -> Callable[[Root], Source]:
    return lambda root: tables.table(root, format)


def records(source: Source, listing: Listing | None = None) -> list[Record]:
    """What a source reads, as an executor does."""
    listing = listing or source.listing()
    sent: Source = pickle.loads(pickle.dumps(source))
    return [record for partition in listing.partitions for record in sent.read(partition)]


def texts(found: list[Record]) -> dict[str, str]:
    assert all(isinstance(record, Document) for record in found), found
    return {record.doc_id: record.text for record in found if isinstance(record, Document)}


def a_folder_of_files(folder: Path) -> Path:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "Büro 50%.md").write_text("# Lockers\n\nA locker opens with the code.\n")
    (folder / "notes.txt").write_text("Call the courier.\n")
    return folder


def an_export(folder: Path) -> Path:
    days: dict[str, object] = {
        "users.json": [{"id": "U1", "name": "ada"}],
        "channels.json": [{"id": "C1", "name": "general"}, {"id": "C2", "name": "ガイド"}],
        "general/2025-03-03.json": [message(0, "hello")],
        "ガイド/2025-03-03.json": [message(1, "guide")],
        "general/readme.txt": "no day",
    }
    for name, value in days.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder


def an_archive(folder: Path) -> Path:
    unpacked = an_export(folder / "unpacked")
    with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(unpacked.rglob("*.json")):
            archive.write(file, file.relative_to(unpacked))
    return folder / "export.zip"


def parquet(folder: Path) -> Path:
    write_parquet(folder / "day=1" / "a.parquet", rows(*map(str, range(20_000))))
    write_parquet(folder / "day=2" / "b.parquet", rows("b"))
    (folder / "day=2" / "b.parquet").rename(folder / "day=2" / "without a suffix")
    (folder / "_SUCCESS").write_text("")
    return folder


def ndjson(folder: Path) -> Path:
    write_lines(folder / "a.json", lines("1", "2"))
    packed = write_lines(folder / "b.jsonl", lines("3"))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    return folder


def single(folder: Path) -> Path:
    return write_parquet(folder / "rows.parquet", rows("1", "2"))


def delta(folder: Path) -> Path:
    log = DeltaLog(folder, MAPPED, features=["deletionVectors"]).create()
    log.add("a.parquet", rows("1", "2", "3"))
    log.add("b.parquet", rows("4"))
    log.delete("a.parquet", [1], inline=False)
    return folder


KINDS = {
    "files": (a_folder_of_files, files, 2),
    "an export": (an_export, export, 2),
    "a zip": (an_archive, export, 2),
    "Parquet": (parquet, table("parquet"), 20_001),
    "JSON lines": (ndjson, table("json"), 3),
    "one file": (single, table("parquet"), 2),
    "Delta": (delta, table("delta"), 3),
}


@pytest.mark.parametrize(("build", "opened", "count"), KINDS.values(), ids=KINDS.keys())
def test_a_source_in_a_store_reads_as_in_a_folder(
    tmp_path: Path, moto: Moto, build: Callable[[Path], Path], opened: Callable[[Root], Source], count: int
) -> None:
    place = build(tmp_path / "source")
    local, stored = opened(place), opened(uploaded(moto, place))
    here, there = local.listing(), stored.listing()
    assert [p.key for p in there.partitions] == [p.key for p in here.partitions] and there.complete
    assert [(r.key, r.reason) for r in there.rejected] == [(r.key, r.reason) for r in here.rejected]
    found = texts(records(stored, there))
    assert found == texts(records(local, here)) and len(found) == count
    assert stored.names == local.names


@pytest.mark.parametrize("build", [a_folder_of_files, parquet], ids=["files", "Parquet"])
def test_a_fingerprint_is_that_of_the_bytes(tmp_path: Path, moto: Moto, build: Callable[[Path], Path]) -> None:
    place = build(tmp_path / "source")
    root = uploaded(moto, place)
    opened = files if build is a_folder_of_files else table("parquet")
    before = {p.key: p.fingerprint for p in opened(root).listing().partitions}
    for file in [file for file in place.rglob("*") if file.is_file()]:
        put(root, file.relative_to(place).as_posix(), file.read_bytes())
    assert {p.key: p.fingerprint for p in opened(root).listing().partitions} == before, "a copy is no change"
    file = next(path for path in place.rglob("*") if path.suffix in (".txt", ".parquet"))
    put(root, file.relative_to(place).as_posix(), bytes(file.stat().st_size))
    after = {p.key: p.fingerprint for p in opened(root).listing().partitions}
    assert len({key for key in before if after[key] != before[key]}) == 1


ODD = ["a//b.txt", "up/../c.txt", "./d.txt", "x%41.txt", "q?#&+ .txt", "ü ö.txt", "back\\slash.txt", " .txt"]


def test_any_key_is_read_and_none_hides_another(moto: Moto) -> None:
    root = prefix(moto)
    for name in ODD:
        put(root, name, f"text of {ODD.index(name)}".encode())
    put(root, "folder/", b"")
    found = texts(records(files(root)))
    assert sorted(found.values()) == sorted(f"text of {n}" for n in range(len(ODD))) and len(found) == len(ODD)


def test_an_archive_that_is_written_over_is_read_again_and_is_not_damaged(tmp_path: Path, moto: Moto) -> None:
    root = uploaded(moto, an_archive(tmp_path))
    source = export(root)
    listing = source.listing()
    put(root, "", b"PK something else")
    _open_zip.cache_clear()  # as in an executor, which opens it only now
    [*found] = records(source, listing)
    assert len(found) == 2
    for record in found:
        assert isinstance(record, Rejected) and record.retry and record.whole and record.reason == "io_error"
        assert record.detail == "written over since it was listed"
    assert [r.reason for r in source.listing().rejected] == ["unreadable_zip"]


def test_an_object_is_never_read_half_old_and_half_new(moto: Moto) -> None:
    root = prefix(moto)
    put(root, "a", b"a" * 1_000_000)
    with root.open("a", buffer=1000) as file:
        assert file.read(10) == b"a" * 10
        put(root, "a", b"b" * 1_000_000)
        with pytest.raises(OSError, match="written over since it was listed"):
            file.read(500_000)


def test_what_is_gone_since_it_was_listed_is_tried_again(tmp_path: Path, moto: Moto) -> None:
    root = uploaded(moto, a_folder_of_files(tmp_path / "files"))
    source = files(root)
    listing = source.listing()
    remove(root, "notes.txt")
    [gone] = [record for record in records(source, listing) if not isinstance(record, Document)]
    assert isinstance(gone, Rejected) and (gone.reason, gone.detail, gone.retry) == ("io_error", "no such object", True)


def test_a_table_must_be_read_by_its_log(tmp_path: Path, moto: Moto) -> None:
    root = uploaded(moto, delta(tmp_path / "delta"))
    with pytest.raises(SourceError, match='is a Delta table, whose log .* set format = "delta"'):
        table("parquet")(root).listing()


def test_a_data_file_that_the_log_names_and_that_is_gone_is_a_fault_and_no_deletion(tmp_path: Path, moto: Moto) -> None:
    root = uploaded(moto, delta(tmp_path / "delta"))
    remove(root, "b.parquet")
    listing = table("delta")(root).listing()
    [fault] = listing.rejected
    assert not listing.complete, "the table is not as its log says"
    assert (fault.key, fault.reason, fault.retry) == ("b.parquet", "io_error", True)


@pytest.mark.parametrize("opened", [files, export, table("parquet"), table("json"), table("delta")])
def test_an_empty_prefix_is_never_a_deletion(moto: Moto, opened: Callable[[Root], Source]) -> None:
    with pytest.raises(SourceError, match="s3://lake/sources/"):
        opened(prefix(moto)).listing()


@pytest.mark.parametrize("opened", [files, export, table("parquet"), table("delta")])
def test_a_store_that_cannot_be_asked_is_named_with_what_to_look_at(
    opened: Callable[[Root], Source], moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Prefix(Bucket("no-such-bucket", moto.uri, allow_http=True), "a")
    with pytest.raises(SourceError, match="s3://no-such-bucket/a: no such bucket; look at the credentials"):
        opened(nowhere).listing()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    unknown = Prefix(Bucket(BUCKET, moto.uri, allow_http=True, profile="reader"), "a")
    with pytest.raises(SourceError, match="there is no profile 'reader' in AWS's files"):
        opened(unknown).listing()


def test_a_profile_is_used_in_place_of_the_environment(
    moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[reader]\naws_access_key_id = of-the-profile\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    root = Prefix(Bucket(BUCKET, moto.uri, allow_http=True, profile="reader"), f"sources/{uuid.uuid4().hex}")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of the environment")
    with root.delta_options() as options:
        assert options["AWS_ACCESS_KEY_ID"] == "of-the-profile" and "AWS_SESSION_TOKEN" not in os.environ
    with Prefix(Bucket(BUCKET, moto.uri), "a").delta_options() as options:
        assert "AWS_ACCESS_KEY_ID" not in options and os.environ["AWS_SESSION_TOKEN"] == "of the environment"
    put(root, "a.txt", b"hello")
    assert list(texts(records(files(root))).values()) == ["hello"]


def test_a_key_that_ends_like_a_folder_s_is_read_where_it_holds_something(moto: Moto) -> None:
    """It was passed over without a word. An empty one is how consoles make a folder."""
    root = prefix(moto)
    put(root, "empty/", b"")
    put(root, "notes.txt/", b"hello")
    assert list(texts(records(files(root))).values()) == ["hello"]


SECTION = '[[sources]]\nkind = "files"\nuri = "{}"\nteam_id = "T1"\n[sources.storage]\n{}\n'


@pytest.mark.parametrize(
    ("uri", "storage", "said"),
    [
        ("gs://lake/a", "", "sources[0].uri: gs:// is not supported; give a path, or s3://bucket/prefix"),
        ("s3a://lake/a", "", "sources[0].uri: s3a:// is not supported; give a path, or s3://bucket/prefix"),
        ("s3://key:pa55w0rd@lake/a", "", "sources[0].uri: give a path, or s3://bucket/prefix, without credentials"),
        ("s3://lake/a", 'endpoint = "http://store:1"', "sources[0].storage: endpoint is http://, which all on the way"),
        ("s3://lake/a", 'endpoint = "http://u:pa55w0rd@s"', "sources[0].storage.endpoint: give http(s)://host:port"),
    ],
)
def test_a_wrong_address_is_said_before_any_work(tmp_path: Path, uri: str, storage: str, said: str) -> None:
    file = tmp_path / "embedmill.toml"
    file.write_text(SECTION.format(uri, storage))
    with pytest.raises(Exception) as failed:
        load_config(file)
    assert said in str(failed.value) and "pa55w0rd" not in str(failed.value)


def test_where_a_source_is_makes_it_another_and_a_slash_does_not(tmp_path: Path) -> None:
    def opened(uri: str) -> Source:
        file = tmp_path / "embedmill.toml"
        file.write_text(SECTION.format(uri, ""))
        [source] = open_sources(load_config(file))
        return source

    assert opened("s3://lake/a/").source_id == opened("s3://lake/a").source_id != opened("s3://lake/b").source_id


class InStore(Workspace):
    """A workspace whose sources are in a store."""

    def __init__(self, root: Path, store: Store) -> None:
        super().__init__(root)
        self.at = prefix(store)
        storage = f'[sources.storage]\nendpoint = "{store.uri}"\nallow_http = true\n'
        text = self.config.read_text()
        for name in ("export", "files"):
            at = f'uri = "s3://{BUCKET}/{self.at.key}/{name}"\nteam_id = "{TEAM}"\n{storage}'
            text = text.replace(f'uri = "{name}"\nteam_id = "{TEAM}"\n', at)
        self.config.write_text(text)
        self.upload()

    def upload(self) -> None:
        """Put there what is in the folders, and remove what is not."""
        there = {found.path for found in self.at.listing()}
        for folder in (self.export, self.files):
            for file in folder.rglob("*"):
                if file.is_file():
                    name = file.relative_to(self.root).as_posix()
                    put(self.at, name, file.read_bytes())
                    there.discard(name)
        for name in there:
            remove(self.at, name)


def test_a_life_of_sources_in_a_store(tmp_path: Path, moto: Moto, encoder_here: None) -> None:
    space = InStore(tmp_path / "ws", moto)
    first = space.run()
    assert (first.code, counts(first)) == (0, {"embedded": 8}), first
    space.upload()
    again = space.run()
    assert (again.code, counts(again), again.body["chunks"]["unchanged"]) == (0, {}, 8), again
    space.day("general", [message(0, "The lockers are open"), *space.messages("general")[1:]])
    os.remove(space.files / "notes.txt")
    space.upload()
    changed = space.run()
    assert (changed.code, counts(changed)) == (0, {"embedded": 1, "deleted": 1}), changed
    assert space.verify().code == 0


def test_an_answer_that_breaks_off_is_asked_for_again_and_never_taken_for_the_whole(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prefix(moto)
    put(root, "a.txt", b"all of a text")
    client = buckets._client(root.bucket)
    real, asked = client.get_object, []

    def get_object(**words: object) -> dict[str, object]:
        asked.append(words)
        told: dict[str, object] = real(**words)
        if len(asked) < 3:  # the connection is closed early, which urllib3 tells nobody who asks for a number of bytes
            told["Body"] = StreamingBody(io.BytesIO(b"all of"), 1000)
        return told

    monkeypatch.setattr(client, "get_object", get_object)
    assert list(texts(records(files(root))).values()) == ["all of a text"] and len(asked) == 3
    monkeypatch.setattr(
        client, "get_object", lambda **_: {"Body": StreamingBody(io.BytesIO(b""), 9), "ContentLength": 9}
    )
    [failed] = records(files(root))
    assert isinstance(failed, Rejected) and failed.retry and "broke off" in failed.detail


def test_a_listing_opens_no_object_and_what_is_no_parquet_is_told_by_its_reader(
    tmp_path: Path, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = uploaded(moto, parquet(tmp_path / "rows"))
    put(root, "day=2/part.2024", (tmp_path / "rows" / "day=2" / "without a suffix").read_bytes())
    put(root, "notes", b"no table")
    source = table("parquet")(root)
    read: list[str] = []
    real = Prefix.read

    def watched(self: Prefix, path: str, most: int | None = None, etag: str = "") -> bytes:
        read.append(path)
        return real(self, path, most, etag)

    monkeypatch.setattr(Prefix, "read", watched)
    listing = source.listing()
    assert read == [] and len(listing.partitions) == 4
    found = {p.key: records(source, Listing((p,))) for p in listing.partitions}
    [notes] = found["notes"]
    assert isinstance(notes, Rejected) and (notes.reason, notes.ignored) == ("not_a_data_file", True)
    assert len(found["day%3D2/part.2024"]) == 1 == len(found["day%3D2/without%20a%20suffix"])


def test_without_boto3_a_host_is_named_and_what_it_was_to_read_is_tried_again(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prefix(moto)
    put(root, "a.txt", b"hello")
    source = files(root)
    listing = source.listing()
    monkeypatch.setitem(sys.modules, "boto3", None)
    buckets._session.cache_clear()
    buckets._client.cache_clear()
    [failed] = records(source, listing)
    assert isinstance(failed, Rejected) and failed.retry and socket.gethostname() in failed.detail
    with pytest.raises(SourceError, match=r's3:// needs boto3, .*pip install "embedmill\[aws\]"'):
        source.listing()


def test_one_packed_file_is_unpacked(tmp_path: Path, moto: Moto) -> None:
    root = prefix(moto, f"sources/{uuid.uuid4().hex}/rows.jsonl.gz")
    put(root, "", gzip.compress(write_lines(tmp_path / "rows", lines("1", "2")).read_bytes()))
    assert len(texts(records(table("json")(root)))) == 2


def test_lines_are_read_twice_and_must_be_the_same(tmp_path: Path, moto: Moto) -> None:
    root = prefix(moto)
    put(root, "a.json", write_lines(tmp_path / "a", lines("1", "2")).read_bytes())
    data = JsonData(ObjectName(root, "a.json"))
    assert sum(batch.rows for batch in data.batches(["id"])) == 2
    put(root, "a.json", write_lines(tmp_path / "a", lines("3", "4")).read_bytes())
    with pytest.raises(OSError, match="written over since it was listed"):
        list(data.batches(["id"]))


@pytest.mark.parametrize("key", ["t#1", "t?x", "a%20b", "a//b", "a/../b"])
def test_a_delta_table_is_never_read_by_another_one_s_log(tmp_path: Path, moto: Moto, key: str) -> None:
    with pytest.raises(SourceError, match="a Delta table's prefix may have no"):
        root = prefix(moto, f"sources/{key}")
        put(root, "a.parquet", b"")
        table("delta")(root).listing()


def test_a_slash_too_many_is_a_part_of_the_key(moto: Moto) -> None:
    bucket = Bucket(BUCKET, moto.uri, allow_http=True)
    assert Prefix.of("s3://lake//a/b", bucket).start == "/a/b/" and Prefix.of("s3://lake/", bucket).start == ""


def test_rows_that_moved_into_a_file_that_cannot_be_read_stay(tmp_path: Path, encoder_here: None) -> None:
    """As after a compaction: the files that it replaced are gone, and the new one answers with a fault."""
    space = Workspace(tmp_path / "ws", files=False)
    rows_at = space.root / "rows"
    write_parquet(rows_at / "a.parquet", rows("1", "2"))
    write_parquet(rows_at / "b.parquet", rows("3"))
    write_parquet(rows_at / "d.parquet", rows("4"))
    section = '[[sources]]\nkind = "table"\nuri = "rows"\nteam_id = "T01"\n[sources.columns]\n'
    columns = "".join(f'{name} = "{column}"\n' for name, column in tables.PLAIN.items())
    space.config.write_text(section + columns + space.config.read_text())
    assert counts(space.run()) == {"embedded": 10}
    whole = write_parquet(tmp_path / "c.parquet", rows("1", "2", "3")).read_bytes()
    for name in ("a", "b"):
        (rows_at / f"{name}.parquet").unlink()
    (rows_at / "c.parquet").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):  # also by a run that does not read it again
        broken = space.run()
        assert broken.code == 3 and counts(broken) == {}, broken
        assert sum(one["documents"] for one in space.call("status").body["held_back"]) == 3
    (rows_at / "c.parquet").write_bytes(whole)
    mended = space.run()
    assert (mended.code, counts(mended)) == (0, {}) and mended.body["chunks"]["total"] == 10, mended
    assert space.call("status").body["held_back"] == []
    (rows_at / "c.parquet").unlink()
    gone = space.run()
    assert counts(gone) == {"deleted": 3}, gone
