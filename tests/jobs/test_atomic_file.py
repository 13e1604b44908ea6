"""A small file is replaced whole, is private, and leaves nothing beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.state.atomic_file import replace_file


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    for data in (b"first, and longer", b"second"):
        replace_file(tmp_path / "note", data, durable=durable)
        assert (tmp_path / "note").read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["note"]
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600
    assert len(flushed) == (2 if durable else 0), "a heartbeat must not wait for the disk"
