"""A table source through the command line: what is deleted in a table goes, what cannot be read stays, and says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.delta_log import DeltaLog
from tests.support.tables import write_lines, write_parquet
from tests.support.workspace import Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")

DELTA = {"id": "string", "body": "string", "at": "timestamp", "team": "string"}
AT = 1_740_960_000_000_000


def rows(*said: tuple[str, str]) -> pa.Table:
    columns: dict[str, Any] = {
        "id": [i for i, _ in said],
        "body": [t for _, t in said],
        "at": pa.array([AT] * len(said), pa.timestamp("us", "UTC")),
    }
    return pa.table(columns)


def configure(space: Workspace, *sources: tuple[str, str]) -> None:
    columns = 'columns = { id = "id", text = "body", created_at = "at", team_id = "team" }\n'
    entries = "".join(
        f'[[sources]]\nkind = "table"\nuri = "{uri}"\nformat = "{kind}"\n{columns}' for kind, uri in sources
    )
    space.config.write_text(entries + '[model]\nbackend = "hash"\n[spark]\nmaster = "local[2]"\n')


def published(space: Workspace, *teams: str) -> dict[str, str]:
    """Text by doc_id of what a search finds."""
    found: dict[str, str] = {}
    for team in teams:
        ran = space.call("search", "text", "--team", team, "--k", "50")
        assert ran.code == 0, ran.err
        found |= {hit["doc_id"]: hit["text"] for hit in ran.body["hits"]}
    return found


def test_a_lake_is_followed(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "ws")
    lake = space.root / "my lake" / "Büro"
    log = DeltaLog(lake, DELTA, ["team"], ["deletionVectors", "columnMapping"], "name").create()
    log.add("team=007/a.parquet", rows(("1", "text one"), ("2", "text two"), ("3", "text three")), {"team": "007"})
    lines: list[dict[str, object]] = [
        {"id": i, "body": f"text {i}", "at": AT // 10**6, "team": "7"} for i in ("2024-01-01 00:00:00", "b", "c")
    ]
    path = write_lines(space.root / "lines" / "a.json", lines)
    configure(space, ("delta", "my lake/Büro"), ("json", "lines"))
    ran = space.run()
    assert ran.code == 0, ran.err
    assert set(published(space, "007")) == {"007/t/1", "007/t/2", "007/t/3"}
    assert len(published(space, "7")) == 3

    log.delete("team=007/a.parquet", [1])
    lines[1]["body"] = None
    lines.append(lines[0] | {"id": "ms", "at": AT // 1000})
    write_lines(path, lines)
    ran = space.run()
    assert ran.code == 3 and ran.body["chunks"]["deleted"] == 2, ran.err
    assert set(published(space, "007")) == {"007/t/1", "007/t/3"}
    assert {text for text in published(space, "7").values()} == {"text 2024-01-01 00:00:00", "text c"}
    assert space.quarantine() == {"bad_created_at": 1}

    write_lines(path, [*lines, "{broken"])
    ran = space.run()
    assert ran.code == 3 and ran.body["chunks"]["deleted"] == 0, "its other lines are read as before"
    assert space.quarantine() == {"bad_created_at": 1, "bad_json": 1}
    assert not any(space.verify().body["differences"].values())


def test_a_folder_that_cannot_be_listed_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Workspace(tmp_path / "ws")
    for team in ("A", "B"):
        write_parquet(space.root / "rows" / f"team={team}" / "a.parquet", rows(("1", "text one")))
    configure(space, ("parquet", "rows"))
    assert space.run().code == 0
    scan = os.scandir

    def refusing(path: Any = ".") -> Any:
        if not isinstance(path, int) and os.fsdecode(path).endswith("team=B"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    ran = space.run()
    assert ran.code == 3 and ran.body["chunks"]["deleted"] == 0
    assert set(published(space, "A", "B")) == {"A/t/1", "B/t/1"}
    assert space.quarantine() == {"unreadable_folder": 1}


def test_a_table_that_would_be_read_wrongly_is_refused_in_one_line(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "ws")
    DeltaLog(space.root / "lake", DELTA, features=["typeWidening"]).create().add("a.parquet", rows(("1", "text")))
    configure(space, ("delta", "lake"))
    for command in ("plan", "run"):
        ran = space.call(command)
        assert ran.code == 2 and "typeWidening" in ran.err and len(ran.err.strip().splitlines()) == 1
