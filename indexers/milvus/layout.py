"""How a version lies in Milvus: what an engine of a version can do, the schema, and the proof that a layout reads back.

The proof exists because of one server (2.3.5) that takes upserts into a collection with a partition key, counts them
right, and then finds a hundredth of a team's rows: that a write was accepted says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from typing import Any

import numpy as np
import pyarrow as pa
from pymilvus import DataType, Function, FunctionType, MilvusClient

from embedding.errors import ConfigError
from embedding.records import Metric
from indexers.base import Capabilities, Index, SearchRequest, Settings
from indexers.bm25 import K1, B
from indexers.milvus.limits import MAX_BYTES
from indexers.rows import ADDED, INDEX_ROW, MAX_MENTIONS

SPACE_KEY = "space_id"
OWNER_KEY = "owner_state"
METRIC_KEY = "metric"  # "dot"; a version of an earlier release says nothing, and compares by cosine
METRICS: Mapping[Metric, str] = {"cosine": "COSINE", "dot": "IP"}  # as Milvus calls them
PROVEN_KEY = "read_back_on"
# Milvus's own name for whether it compacts a collection by itself. A server before 2.4 that is killed loses deletes
# which it had written to its files: where those of two segments came while both were compacted into one, its catalogue
# keeps one file for all (completeMixCompactionMutation and copyDeltaFiles in internal/datacoord/meta.go; on 2.3.5 three
# of four segments lost theirs in each of two trials, and none where it does not compact by itself). From 2.4 on deletes
# go to segments of their own (milvus-io/milvus 27349), which need that compaction.
COMPACTION_KEY = "collection.autocompaction.enabled"
WORDS = "words"  # the sparse vectors that BM25 makes of the column LEXICAL, in versions of earlier releases of "text"
LEXICAL = "lexical"
SERVER_WRITERS = 4

_NUMBERS = {pa.int32(): DataType.INT32, pa.int64(): DataType.INT64, pa.bool_(): DataType.BOOL}

PROOF_DIM = 8
_PROOF_TEAMS = 8
_PROOF_ROWS = 320


@dataclass(frozen=True, slots=True)
class Layout:
    """What a version's schema has; read back from the collection, never assumed.

    ``metric`` compares its vectors. ``columns`` are those of INDEX_ROW that it has: without BM25 not LEXICAL, in a
    version of an earlier release none of ADDED.
    """

    partition_key: bool = False
    words: bool = False
    float16: bool = False
    metric: Metric = "cosine"
    columns: tuple[str, ...] = tuple(name for name in INDEX_ROW.names if name != LEXICAL)

    def __str__(self) -> str:
        return "with the team as partition key" if self.partition_key else "without a partition key"


def capabilities_of(server_version: str, *, lite: bool, writers: int) -> Capabilities:
    """What an engine can do; a server says its version, and of an unknown one the least is expected."""
    if lite:
        found = package_version("milvus-lite")
        return Capabilities(
            f"Milvus Lite {found}", lexical=_at_least(found, 3, 2), conditional=False, writers=1, embedded=True
        )
    # A managed server says "... (Compatible with Milvus 2.5)", `milvus-lite server` "milvus_lite-3.2.2"; but
    # "v2.3.5-lite" is a real server in one process.
    if server_version.startswith("milvus_lite"):
        found = server_version.rpartition("-")[2]
        return Capabilities(f"Milvus Lite {found}", lexical=_at_least(found, 3, 2), conditional=False, writers=1)
    match = re.search(r"(\d+)\.(\d+)[\w.-]*", server_version)
    found = match[0] if match else server_version or "of unknown version"
    return Capabilities(
        f"Milvus {found}",
        lexical=_at_least(found, 2, 5),
        conditional=False,
        writers=writers or SERVER_WRITERS,
        float16=_at_least(found, 2, 4),
        compacts=_at_least(found, 2, 4) or match is None,
    )


def _at_least(version: str, *wanted: int) -> bool:
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and (int(match[1]), int(match[2])) >= wanted


def wanted_layout(settings: Settings, can: Capabilities) -> Layout:
    """The layout that the settings ask for, partition key aside. ConfigError for what the engine does not have."""
    if settings.hybrid and not can.lexical:
        raise ConfigError(f"index.hybrid: {can.engine} has no BM25 (a server from 2.5 on and Milvus Lite 3.2 have)")
    if settings.storage == "float16" and not can.float16:
        raise ConfigError(f'index.storage: {can.engine} has no float16 (a server from 2.4 on has); use "float32"')
    words = can.lexical if settings.hybrid is None else settings.hybrid
    layout = Layout(words=words, float16=settings.storage == "float16")
    return replace(layout, columns=tuple(INDEX_ROW.names)) if words else layout


def marks_of(can: Capabilities) -> dict[str, str]:
    """What a collection carries of the engine that writes it: where its layout was read back, and who compacts it."""
    return {PROVEN_KEY: can.engine} | ({} if can.compacts else {COMPACTION_KEY: "false"})


def layout_of(described: Mapping[str, Any]) -> tuple[int, Layout]:
    """Dimension and layout of a collection, from what the engine says of it."""
    fields = {field["name"]: field for field in described["fields"]}
    metric: Metric = "dot" if described.get("properties", {}).get(METRIC_KEY) == "dot" else "cosine"
    return int(fields["vector"]["params"]["dim"]), Layout(
        partition_key=bool(fields["team_id"].get("is_partition_key")),
        words=WORDS in fields,
        float16=fields["vector"]["type"] == DataType.FLOAT16_VECTOR,
        metric=metric,
        columns=tuple(name for name in INDEX_ROW.names if name in fields),
    )


def schema_of(dim: int, layout: Layout) -> Any:
    """Mirror the columns of a layout."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    words = LEXICAL if LEXICAL in layout.columns else "text"
    for name in layout.columns:
        field = INDEX_ROW.field(name)
        if name == "vector":
            kind = DataType.FLOAT16_VECTOR if layout.float16 else DataType.FLOAT_VECTOR
            schema.add_field(name, kind, dim=dim)
        elif pa.types.is_string(field.type):
            options: dict[str, Any] = {"is_primary": name == "chunk_id", "max_length": MAX_BYTES[name]}
            if name == "team_id" and layout.partition_key:
                options["is_partition_key"] = True
            if name == words and layout.words:
                options["enable_analyzer"] = True
            schema.add_field(name, DataType.VARCHAR, **options)
        elif pa.types.is_list(field.type):
            limits = {"max_capacity": MAX_MENTIONS, "max_length": MAX_BYTES[name]}
            schema.add_field(name, DataType.ARRAY, element_type=DataType.VARCHAR, **limits)
        else:
            schema.add_field(name, _NUMBERS[field.type])
    if layout.words:
        schema.add_field(WORDS, DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(Function("bm25", FunctionType.BM25, input_field_names=[words], output_field_names=[WORDS]))
    return schema


def indexes_of(layout: Layout, *, lite: bool) -> dict[str, dict[str, Any]]:
    """Parameters of the index on each field that has one."""
    # Lite: FLAT is exact, needs no building and no faiss, and its cost (a matrix product) is small beside what
    # Lite spends on filters and keys; Lite keeps all vectors in memory anyhow. Its AUTOINDEX turns into HNSW
    # where faiss is installed, whose recall falls under a selective team filter.
    # Server: HNSW, filtered inside the graph and exact below its own threshold of matching rows. M and
    # efConstruction are hnswlib's usual values for some hundred dimensions.
    flat: dict[str, Any] = {"index_type": "FLAT", "params": {}}
    graph: dict[str, Any] = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}
    found = {"vector": {"metric_type": METRICS[layout.metric], **(flat if lite else graph)}}
    if layout.words:
        # Milvus Lite's own k1 would be 1.5.
        weights = {"bm25_k1": K1, "bm25_b": B}
        found[WORDS] = {"metric_type": "BM25", "index_type": "SPARSE_INVERTED_INDEX", "params": weights}
    return found


def read_back(index: Index, scratch: str) -> str | None:
    """Write rows of several teams into an empty version twice, and read them as a user would.

    Returns what was wrong, None where every team finds its rows as they were last written, and no others.
    """
    ids = [f"{n:04d}" for n in range(_PROOF_ROWS)]
    first = {key: (f"T{n % _PROOF_TEAMS}", "first") for n, key in enumerate(ids)}
    # The second time in another order, and every tenth row by then of another team.
    second = {key: (f"T{(n + (n % 10 == 0)) % _PROOF_TEAMS}", "second") for n, key in enumerate(ids)}
    second = dict(sorted(second.items(), key=lambda item: item[0][::-1]))
    for written in (first, second):
        index.upsert(scratch, _proof_rows(written))
    held = [row for batch in index.scan(scratch) for row in batch.to_pylist()]
    if (count := index.count(scratch)) != len(second) or len(held) != len(second):
        return f"{len(second)} rows written twice are {count} counted and {len(held)} read"
    if {row["chunk_id"]: (row["team_id"], row["meta_hash"]) for row in held} != second:
        return "rows written twice are not as they were last written"
    for number in range(_PROOF_TEAMS):
        mine = {key for key, (team, _) in second.items() if team == f"T{number}"}
        hits = index.search(scratch, np.ones(PROOF_DIM, np.float32), SearchRequest(f"T{number}", k=2 * len(mine)))
        if {hit.chunk_id for hit in hits} != mine:
            return f"a team's search finds {len(mine & {hit.chunk_id for hit in hits})} of its {len(mine)} rows"
    return None


def _proof_rows(written: Mapping[str, tuple[str, str]]) -> pa.Table:
    vectors = np.random.default_rng(0).normal(size=(len(written), PROOF_DIM)).astype(np.float32)
    return pa.Table.from_pylist(
        [
            {
                "chunk_id": key,
                "team_id": team,
                "channel_id": "C",
                "channel_name": "c",
                "kind": "message",
                "doc_id": key,
                "chunk_no": 0,
                "created_at": 0,
                "updated_at": 0,
                "version": 0,
                "text": key,
                **ADDED,
                "meta": "{}",
                "content_hash": key,
                "meta_hash": mark,
                "vector": vector,
            }
            for (key, (team, mark)), vector in zip(written.items(), vectors.tolist(), strict=True)
        ],
        schema=INDEX_ROW,
    )
