"""Both engines give the same answers, and which one a run uses is decided by the size and the place of its work."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from embedding.errors import ResourceError
from embedding.records import CHUNK
from jobs.extract import ownership
from jobs.extract.conversations import messages_of, touched_groups
from jobs.plan import actions
from jobs.plan.dealing import deal
from jobs.plan.deletion_guard import cutover_losses
from jobs.plan.renames import keep_names
from jobs.scope import Scope
from jobs.state.duckdb_frames import DuckFrames
from jobs.state.frames import Frame, Frames
from jobs.state.parts import write_part
from jobs.state.staging import staged
from jobs.state.store import State
from jobs.state.table_files import TableFile, Wanted
from jobs.state.tables import PUBLISHED, REMOVALS, TABLES, VECTORS, bucket_of
from tests.support.blank import blank
from tests.support.in_process import open_pipeline
from tests.support.paths import BY_SPARK
from tests.support.paths import HARD as HARD_PATH
from tests.support.workspace import TEAM, Workspace, message

AT = pa.schema([("source_id", pa.string()), ("partition", pa.string())])
PROTECTED = pa.schema([("doc_id", pa.string()), *AT])
HOLDING = pa.schema([*AT, ("anything", pa.bool_()), ("listed", pa.bool_()), ("reason", pa.string())])
NAMED = pa.schema([("doc_id", pa.string()), *AT, ("named_reason", pa.string()), ("waits", pa.bool_())])
HARD = "T'1 \\ {x} \u00e9"  # a team's id that no literal would carry as it is


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Frames]]:
    """One of each."""
    space = Workspace(tmp_path_factory.mktemp("engines") / "ws")
    space.config.write_text(space.config.read_text().replace("[spark]\n", BY_SPARK))
    small = DuckFrames(tmp_path_factory.mktemp("duckdb"), "1g")
    yield {"spark": open_pipeline(space.config).frames(), "duckdb": small}
    small.close()


class World:
    """Rows of a run as random as they may be: few documents, so that all meet all.

    ``name`` begins the names of its sources, documents and texts, so that worlds of several names can be asked at once.
    """

    def __init__(self, seed: int, name: str = "") -> None:
        self.chance, self.name = random.Random(seed), name
        self.sources, self.texts = [f"{name}a", f"{name}b"], [f"{name}{text}" for text in "xyz"]
        self.now = self.chunks(40, unique=False)
        self.known = self.chunks(60, unique=True)
        self.at = [{"source_id": source, "partition": part} for source in self.sources for part in "12"]

    def chunk(self) -> dict[str, Any]:
        pick, n = self.chance.choice, self.chance.randrange(12)
        about = {"version": pick([1, 2, 3]), "source_id": pick(self.sources), "partition": pick("12")}
        of = random.Random(repr((n, about)))  # one event says one thing: else the order of two is by chance
        row: dict[str, Any] = blank(CHUNK)
        number = pick([0, 0, 1])
        return row | {
            "doc_id": f"{self.name}d{n}",
            "chunk_id": f"{self.name}d{n}#{number}",
            "chunk_no": number,
            "team_id": of.choice([HARD, "T2"]),
            "channel_id": of.choice(["C1", "C2"]),
            "kind": of.choice(["message", "file"]),
            "created_at": 86_400_000_000 * of.choice([1, 2]) + n,
            "content_hash": pick(self.texts),
            "meta_hash": pick("mn"),
            "text_hash": pick("st"),
            "text": f"text {n}",
            "thread_id": pick(["", "", f"{self.name}d1", None]),
            "context": pick(["", None]),
            "tokens": self.chance.randrange(1, 30),
            **about,
        }

    def chunks(self, count: int, *, unique: bool) -> pa.Table:
        rows = [self.chunk() for _ in range(count)]
        if unique:
            rows = list({(row["team_id"], row["chunk_id"]): row for row in rows}.values())
        return pa.Table.from_pylist(rows, schema=pa.schema([f.with_nullable(True) for f in CHUNK]))

    def some(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if self.chance.random() < 0.4]

    def removals(self) -> list[dict[str, Any]]:
        rows = [{name: row[name] for name in REMOVALS.names if name != "deleted"} for row in self.now.to_pylist()[:9]]
        keys = {(row["doc_id"], row["source_id"], row["partition"]): row for row in rows}
        return [row | {"deleted": self.chance.random() < 0.5} for row in keys.values()]

    def documents(self) -> list[dict[str, Any]]:
        return [{"doc_id": f"{self.name}d{n}", **at} for n in range(12) for at in self.at if self.chance.random() < 0.1]

    def holding(self) -> list[dict[str, Any]]:
        return self.some(
            [at | {"anything": self.chance.random() < 0.5, "listed": True, "reason": "r"} for at in self.at]
        )

    def named(self) -> list[dict[str, Any]]:
        return [one | {"named_reason": "n", "waits": False} for one in self.documents()]


def rows_of(frames: Frames, frame: Frame) -> list[str]:
    """A frame's rows in an order of their own, lists in them sorted."""
    return sorted(
        repr([sorted(v, key=str) if isinstance(v, list) else v for v in row.values()])
        for row in frames.collect(frame).to_pylist()
    )


def worlds() -> list[World]:
    """Asked at once: an engine plans a query for longer than it takes for so few rows."""
    return [World(seed, f"w{seed}") for seed in range(3)]


def decided(frames: Frames) -> dict[str, list[str]]:
    """What an engine answers to every question that decides an extraction."""
    asked = worlds()

    def local(schema: pa.Schema, rows: Callable[[World], list[dict[str, Any]]]) -> Frame:
        return frames.local(schema, [row for world in asked for row in rows(world)])

    now, known = (pa.concat_tables(tables) for tables in zip(*((w.now, w.known) for w in asked), strict=True))
    read = ownership.Read(
        frames=frames,
        staged=frames.local(now.schema, now),
        removed=local(REMOVALS, World.removals),
        chunks=frames.local(known.schema, known),
        removals=local(REMOVALS, World.removals),
        covered=local(AT, lambda world: world.some(world.at)),
        protected=local(PROTECTED, World.documents),
        certain=local(AT, lambda world: world.some(world.at)),
    )
    claims = ownership.rank_owners(read, [source for world in asked for source in reversed(world.sources)])
    winners = ownership.winning(read, claims)
    by = ownership.decided_by(read, winners, claims)
    groups = touched_groups(frames, read.staged)
    found = {
        "claims": claims,
        "winners": winners,
        "decided": by,
        "overlapping": ownership.overlapping(read, claims),
        "losing": ownership.losing(read, claims),
        "new": ownership.new_chunks(read, winners),
        "changed": ownership.changed_chunks(read, winners, by),
        "handed on": ownership.handed_on(read, by),
        "removals": ownership.changed_removals(read),
        "staying": ownership.staying(read, local(HOLDING, World.holding), local(NAMED, World.named), by),
        "groups": groups,
        "messages": messages_of(frames, read.chunks, groups),
    }
    return {name: rows_of(frames, frame) for name, frame in found.items()}


def test_both_engines_decide_the_same(engines: dict[str, Frames]) -> None:
    spark, duckdb = (decided(engines[name]) for name in ("spark", "duckdb"))
    for name, rows in spark.items():
        assert duckdb[name] == rows, name
        assert rows, f"{name}: nothing is asked"


def planned(frames: Frames, scope: Scope) -> list[str]:
    known, ledger, vectors = list[pa.Table](), list[dict[str, Any]](), list[dict[str, Any]]()
    for world in worlds():
        known.append(world.known)
        unknown = world.chunk() | {"chunk_id": f"{world.name}d99#0"}
        ledger += [
            {name: row.get(name) for name in PUBLISHED.names}
            | {"index": "v1", "content_hash": world.chance.choice(world.texts)}
            for row in [*world.some(world.known.to_pylist()), unknown]
        ]
        texts = [{"team_id": team, "content_hash": text} for team in (HARD, "T2") for text in world.texts]
        vectors += world.some(texts)
    held = pa.concat_tables(known)
    chunks, published = actions.in_scope(
        frames, frames.local(held.schema, held), frames.local(PUBLISHED, ledger), scope
    )
    chunks = keep_names(frames, chunks, published, 0)
    return rows_of(frames, actions.actions(frames, chunks, published, frames.local(VECTORS, vectors)))


@pytest.mark.parametrize(
    "scope",
    [
        Scope(),
        Scope(teams=(HARD,)),
        Scope(channels=("C1",), kind="message"),
        Scope(teams=("T2",), since=86_400_000_005, until=2 * 86_400_000_000),
    ],
    ids=["all", "team", "channel", "time"],
)
def test_both_engines_plan_the_same(engines: dict[str, Frames], scope: Scope) -> None:
    spark, duckdb = (planned(engines[name], scope) for name in ("spark", "duckdb"))
    assert spark == duckdb and spark


def filled(root: Path, known: pa.Table) -> State:
    """A state whose tables hold these chunks, and a ledger of them as version v1."""
    state = State(root, cut="cut", fence=1)
    for name in ("thread_id", "context"):  # unknown of a row of an earlier release alone
        known = known.set_column(known.column_names.index(name), name, known[name].fill_null(""))
    ledger = pa.Table.from_pylist([row | {"index": "v1"} for row in known.to_pylist()], schema=PUBLISHED)
    state.append("chunks", write_part(root, "chunks", known, "cut", seq=state.next_seq("chunks")))
    state.append("published", write_part(root, "published", ledger, seq=state.next_seq("published")))
    return state


def test_both_engines_read_what_a_table_holds(engines: dict[str, Frames], tmp_path: Path) -> None:
    world = World(1)
    state = filled(tmp_path / "state", world.known)
    for changes in (0, 1, 2):
        held = sorted(state.read("chunks", ["team_id", "chunk_id", "content_hash", "version"]).to_pylist(), key=repr)
        for name, engine in engines.items():
            query = "SELECT team_id, chunk_id, content_hash, version FROM {rows}"
            found = engine.collect(engine.sql(query, rows=engine.table(state, "chunks"))).to_pylist()
            assert sorted(found, key=repr) == held, (name, changes)
        rows = [row | {"version": 9 + changes, "_delete": world.chance.random() < 0.5} for row in held[: 8 + changes]]
        state.change("chunks", rows)


@pytest.mark.parametrize("name", ["spark", "duckdb"])
def test_an_engine_writes_what_it_reads(engines: dict[str, Frames], tmp_path: Path, name: str) -> None:
    world, engine, folder = World(1), engines[name], tmp_path / "rows"
    state = filled(tmp_path / "state", world.known)
    table = engine.table(state, "chunks")
    read = rows_of(engine, table)
    assert len(read) == len(world.known)
    losses = cutover_losses(engine, state, live="v1", version="v2")
    assert sum(loss.deleted for loss in losses) == sum(row.as_py().endswith("#0") for row in world.known["chunk_id"])
    assert engine.write(table, folder) == len(world.known)
    assert rows_of(engine, engine.files(world.known.schema, staged(folder))) == read
    dealt = engine.sql("SELECT *, CAST(pmod(xxhash64(chunk_id), 3) AS STRING) AS shard FROM {rows}", rows=table)
    engine.write(dealt, folder, by="shard")
    assert {path.name for path in folder.iterdir() if path.is_dir()} <= {f"shard={n}" for n in range(3)}
    assert rows_of(engine, engine.files(world.known.schema, staged(folder))) == read
    other = State(tmp_path / "other", cut="cut", fence=1)
    assert engine.write_parts(other, "chunks", table) == len(world.known)
    assert rows_of(engine, engine.table(other, "chunks")) == read


@pytest.mark.parametrize("name", ["spark", "duckdb"])
@pytest.mark.parametrize("folder", ["a [b]?", HARD_PATH])
def test_of_several_files_each_row_is_read_once_whatever_the_folder_is_called(
    engines: dict[str, Frames], tmp_path: Path, name: str, folder: str
) -> None:
    """Under a name with a pattern's characters Spark read all files as often as there are files."""
    engine, schema = engines[name], pa.schema([("shard", pa.string()), ("n", pa.int64())])
    rows = [{"shard": f"s{n % 3}", "n": n} for n in range(12)]
    assert engine.write(engine.local(schema, rows), tmp_path / folder / "rows", by="shard") == 12
    found = staged(tmp_path / folder / "rows")
    assert len(found.files) == 3
    numbers = engine.collect(engine.files(pa.schema([("n", pa.int64())]), found))["n"].to_pylist()
    assert sorted(numbers) == list(range(12))
    state = State(tmp_path / folder / "state", cut="c1", fence=1)
    for number in range(3):
        known = pa.Table.from_pylist(chunk_rows((f"T{number}", "a", "1", False)), schema=TABLES["chunks"].changes)
        parts = write_part(state.root, "chunks", known.select(CHUNK.names), "c1", seq=state.next_seq("chunks"))
        state.append("chunks", parts)
    teams = engine.collect(engine.table(state, "chunks"))["team_id"].to_pylist()
    assert sorted(teams) == ["T0", "T1", "T2"]


def chunk_rows(*which: tuple[str, str, str, bool]) -> list[dict[str, object]]:
    """Rows of ``chunks`` of (team, chunk, text, whether it goes)."""
    named = [{"team_id": team, "chunk_id": chunk, "text": text, "_delete": gone} for team, chunk, text, gone in which]
    return [blank(CHUNK) | row for row in named]


@pytest.mark.parametrize("name", ["spark", "duckdb"])
def test_an_engine_reads_of_each_key_what_its_newest_change_left(
    engines: dict[str, Frames], tmp_path: Path, name: str
) -> None:
    state, engine = State(tmp_path / "layered", cut="c1", fence=1), engines[name]
    State(tmp_path / "layered", cut="c2", fence=1).change("chunks", chunk_rows(("T1", "a", "another cut", False)))

    def read() -> list[tuple[str, str, str]]:
        frame = engine.table(state, "chunks")
        assert frame.columns == CHUNK.names
        shown = engine.collect(frame).select(["team_id", "chunk_id", "text"]).to_pylist()
        listed = state.read("chunks", ["team_id", "chunk_id", "text"]).to_pylist()
        rows = sorted(tuple(row.values()) for row in shown)
        assert rows == sorted(tuple(row.values()) for row in listed)
        return rows

    state.change("chunks", chunk_rows(("T1", "a", "1", False), ("T1", "b", "1", False), ("T2", "a", "1", False)))
    assert len(read()) == 3, "changes of a table that has no rows yet"
    state.fold("chunks")
    assert len(read()) == 3
    state.change("chunks", chunk_rows(("T1", "a", "2", False), ("T2", "c", "2", False)))
    state.change("chunks", chunk_rows(("T1", "a", "3", False), ("T1", "b", "", True)))
    assert read() == [("T1", "a", "3"), ("T2", "a", "1"), ("T2", "c", "2")]
    again = pa.Table.from_pylist(chunk_rows(("T1", "b", "4", False)), schema=TABLES["chunks"].changes)
    parts = write_part(state.root, "chunks", again.select(CHUNK.names), "c1", seq=state.next_seq("chunks"))
    state.append("chunks", parts)
    assert read() == [("T1", "a", "3"), ("T1", "b", "4"), ("T2", "a", "1"), ("T2", "c", "2")]
    state.fold("chunks", join=2)
    assert read() == [("T1", "a", "3"), ("T1", "b", "4"), ("T2", "a", "1"), ("T2", "c", "2")]


@pytest.mark.parametrize(
    ("settings", "reading", "engine"),
    [
        ("", 1_000, "DuckFrames"),
        ("in_process_mb = 1\n", 2_000_000, "SparkFrames"),
        ("in_process_mb = 0\n", 0, "SparkFrames"),
    ],
    ids=["little work", "much to read", "never in this process"],
)
def test_the_engine_goes_by_the_work(workspace: Workspace, settings: str, reading: int, engine: str) -> None:
    workspace.config.write_text(workspace.config.read_text().replace("[spark]\n", f"[spark]\n{settings}"))
    pipeline = open_pipeline(workspace.config)
    assert type(pipeline.frames(reading)).__name__ == engine
    pipeline.close()


def test_whole_tables_of_many_chunks_are_compared_by_spark_and_a_few_rows_of_them_are_not(
    ran: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.pipeline.IN_PROCESS_CHUNKS", 1)
    pipeline = open_pipeline(ran.config)
    asked = [pipeline.frames(1_000), pipeline.frames(), pipeline.frames(whole=True), pipeline.frames()]
    assert [type(one).__name__ for one in asked] == ["DuckFrames"] * 2 + ["SparkFrames"] * 2
    pipeline.close()
    ran.day("general", [message(0, "said anew")])
    planned = ran.call("plan", "--team", TEAM)
    assert planned.code == 0 and planned.body["chunks"]["embedded"] >= 1, "read in this process, planned by Spark"


def test_a_cluster_is_used_however_little_there_is(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    started, asked = list[object](), list[object]()
    monkeypatch.setattr("jobs.engines.spark.start_spark", lambda *given, **named: started.append(given))
    workspace.config.write_text(workspace.config.read_text().replace("local[2]", "spark://127.0.0.1:7077"))
    monkeypatch.setattr("jobs.engines.agreement.check_spark", lambda spark, root, model: asked.append(root))
    pipeline = open_pipeline(workspace.config)
    pipeline.frames()
    assert started and asked == [pipeline.state.root], "its hosts are asked before they work"


@pytest.mark.parametrize("name", ["spark", "duckdb"])
def test_rows_of_this_process_arrive_whole(engines: dict[str, Frames], name: str) -> None:
    """Filters of batches leave some without rows."""
    batches = [pa.record_batch({"name": [letter] * 2}) for letter in "abc"]
    kept = pa.Table.from_batches([batch.filter(pc.not_equal(batch["name"], "b")) for batch in batches])
    assert [len(chunk) for chunk in kept["name"].chunks] == [2, 0, 2]
    frames = engines[name]
    assert frames.collect(frames.local(kept.schema, kept))["name"].to_pylist() == ["a", "a", "c", "c"]


def test_what_does_not_fit_goes_to_scratch_below_any_path(tmp_path: Path) -> None:
    scratch = tmp_path / HARD_PATH / "duckdb"
    frames = DuckFrames(scratch, "60m")
    rows = pa.table({"n": range(400_000), "text": [f"text {n} " * 20 for n in range(400_000)]})
    with frames.keep(frames.local(rows.schema, rows)) as kept:
        assert any(file.stat().st_size for file in scratch.iterdir())
        assert scratch.stat().st_mode & 0o77 == 0
        assert frames.write(kept, tmp_path / HARD_PATH / "rows") == 400_000
    frames.close()
    assert [*scratch.iterdir()] == []


def test_tables_that_need_more_memory_are_one_line(tmp_path: Path) -> None:
    frames = DuckFrames(tmp_path, "10m")
    rows = pa.table({"n": range(1_000_000)})
    lists = frames.sql("SELECT n, collect_list(n) AS l FROM {rows} GROUP BY n", rows=frames.local(rows.schema, rows))
    with pytest.raises(ResourceError, match=r"need more memory than spark\.driver_memory; .*spark\.in_process_mb = 0"):
        frames.collect(lists)


def test_memory_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="spark.driver_memory: 'much' is no amount of memory"):
        DuckFrames(tmp_path, "much")


@pytest.mark.parametrize("name", ["spark", "duckdb"])
def test_what_is_asked_of_a_few_teams_opens_their_files_alone(
    engines: dict[str, Frames], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, engine = State(tmp_path, cut="c1", fence=1), engines[name]
    teams = [f"T{n}" for n in range(60)]
    state.change("chunks", chunk_rows(*((team, "a", "1", False) for team in teams)))
    state.fold("chunks")
    state.change("chunks", chunk_rows(("T7", "b", "2", False), ("T8", "b", "2", False)))
    opened: set[str] = set()
    stored = type(engine).stored

    def watched(self: Frames, state: State, name: str, files: Sequence[TableFile], *asked: Any) -> Frame:
        opened.update(file.partition["bucket"] for file in files)
        return stored(self, state, name, files, *asked)

    monkeypatch.setattr(type(engine), "stored", watched)
    found = engine.collect(engine.table(state, "chunks", teams=["T7"])).to_pylist()
    assert {row["chunk_id"] for row in found if row["team_id"] == "T7"} == {"a", "b"}
    assert opened == {bucket_of("T7")}


def test_a_plan_of_one_team_looks_at_its_files_alone(ran: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []
    table = Frames.table

    def watched(self: Frames, state: State, name: str, partition: Any = None, **named: Any) -> Frame:
        asked.append((name, tuple(named.get("teams", ()))))
        return table(self, state, name, partition, **named)

    monkeypatch.setattr(Frames, "table", watched)
    assert ran.call("plan", "--team", "T01").code == 0
    assert [one for one in asked if one[1]] == [(name, ("T01",)) for name in ("published", "chunks", "vectors")]


_TEXT = pa.schema([("team_id", pa.string()), ("content_hash", pa.string()), ("tokens", pa.int32())])


@pytest.mark.parametrize("teams", [1, 3, 200])
@pytest.mark.parametrize("name", ["spark", "duckdb"])
def test_texts_are_dealt_so_that_a_shard_is_of_few_buckets(engines: dict[str, Frames], name: str, teams: int) -> None:
    engine, chance = engines[name], random.Random(teams)
    rows: list[dict[str, Any]] = [
        {"team_id": f"T{chance.randrange(teams)}", "content_hash": f"{n:040x}", "tokens": chance.randint(5, 60)}
        for n in range(4_000)
    ]
    texts = engine.local(_TEXT, pa.Table.from_pylist(rows, schema=_TEXT))
    for shard_tokens in (1_000_000, 20_000, 2_000):
        dealt = deal(engine, texts, shard_tokens)
        found = engine.collect(dealt.shard_of(engine, texts)).to_pylist()
        assert sorted(row["content_hash"] for row in found) == [row["content_hash"] for row in rows]
        tokens: dict[int, int] = {}
        for row in found:
            tokens[int(row["shard"])] = tokens.get(int(row["shard"]), 0) + row["tokens"]
        total = sum(tokens.values())
        assert dealt.shards == -(-total // shard_tokens) and {*tokens} <= {*range(dealt.shards)}
        assert max(tokens.values()) < 1.6 * total / dealt.shards
        buckets = {bucket_of(row["team_id"]) for row in rows}
        pairs = {(row["shard"], bucket_of(row["team_id"])) for row in found}
        assert len(pairs) < dealt.shards + len(buckets)


def test_many_short_texts_are_more_shards_than_their_tokens_say(engines: dict[str, Frames]) -> None:
    rows = pa.table({"team_id": ["T1"] * 40_000, "content_hash": [f"{n:x}" for n in range(40_000)]})
    rows = rows.append_column("tokens", pa.array([1] * 40_000, pa.int32())).cast(_TEXT)
    assert deal(engines["duckdb"], engines["duckdb"].local(_TEXT, rows), 1_000_000).shards == 3


def test_rows_that_are_wanted_are_all_there_and_row_groups_without_one_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.state.parts.ROW_GROUP", 10)
    frames, state = DuckFrames(tmp_path / "duckdb", "1g"), State(tmp_path / "state", cut="c1", fence=1)
    blanks = [
        row | {"doc_id": row["chunk_id"]} for row in chunk_rows(*(("T1", f"{n:03}", "1", False) for n in range(100)))
    ]
    state.change("chunks", [row | {"partition": f"p{n // 10}"} for n, row in enumerate(blanks)])
    state.fold("chunks")

    def read(wanted: Wanted) -> dict[str, str]:
        rows = frames.collect(frames.table(state, "chunks", wanted=wanted)).to_pylist()
        return {row["chunk_id"]: row["text"] for row in rows}

    assert sorted(read({"doc_id": ["015"]})) == [f"{n:03}" for n in range(10, 20)]
    assert sorted(read({"doc_id": ["015"], "partition": ["p7"]})) == [
        f"{n:03}" for n in (*range(10, 20), *range(70, 80))
    ]
    assert read({"doc_id": ["no such"]}) == {} == read({"doc_id": []})
    assert len(read({"text": ["1"]})) == 100, "what has no statistics is read"
    state.change("chunks", chunk_rows(("T1", "015", "2", False), ("T1", "016", "", True), ("T1", "500", "2", False)))
    found = read({"doc_id": ["015"]})
    assert found["015"] == "2" and "016" not in found and len(found) == 10, "changes are read whole"
    frames.close()
