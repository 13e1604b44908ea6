"""A state as earlier releases left it: format 3, its tables partitioned by team (0.1, 0.2); tables without newer columns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from jobs.state.integrity import record_versions
from jobs.state.store import State
from jobs.state.tables import TABLES

PARTITIONED = {"chunks": ["cut", "team_id"], "vectors": ["space_id", "team_id"], "published": ["index", "team_id"]}


def write_former(root: Path, name: str, rows: pa.Table, number: int = 1) -> None:
    """A table of the former format with these rows, as a merge of that release left it."""
    properties = CommitProperties(app_transactions=[Transaction("lease", number)])
    write_deltalake(str(root / name), rows, partition_by=PARTITIONED[name], commit_properties=properties)


def mark_former(root: Path) -> None:
    """Let the marker of a state say the former format."""
    marker = root / "embedmill.json"
    found = json.loads(marker.read_text()) if marker.exists() else {"spaces": {}}
    marker.write_text(json.dumps(found | {"format": 3}))


def as_former(root: Path) -> None:
    """Rewrite a state's tables as the former release had them."""
    state = State(root)
    for name in PARTITIONED:
        own = [column for column in TABLES[name].stored.names if column not in ("bucket", "layer", "seq", "gone")]
        rows, number = state.dataset(name).to_table(own), DeltaTable(str(root / name)).transaction_version("lease")
        shutil.rmtree(root / name)
        write_former(root, name, rows, number or 1)
    record_versions(root)
    mark_former(root)


def made_earlier(root: Path, name: str, *, without: list[str], **columns: str) -> None:
    """Have a table be as an earlier release left it: without some columns, and with other values in others."""
    rows = pa.table(DeltaTable(str(root / name)).to_pyarrow_dataset().to_table()).drop_columns(without)
    for column, value in columns.items():
        rows = rows.set_column(rows.column_names.index(column), column, pa.array([value] * len(rows), pa.string()))
    where = TABLES[name].stored_by or None
    write_deltalake(str(root / name), rows, mode="overwrite", schema_mode="overwrite", partition_by=where)
