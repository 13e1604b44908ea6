"""A small file is replaced whole, is private, and leaves nothing beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from embedding.atomic_file import replace_file
from embedding.encoders.choose import _kept
from embedding.encoders.fidelity import Fidelity


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    for data in (b"first, and longer", b"second"):
        replace_file(tmp_path / "note", data, durable=durable)
        assert (tmp_path / "note").read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["note"]
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600
    assert len(flushed) == (4 if durable else 0), "the file and its folder; a heartbeat must not wait for the disk"


def test_two_processes_may_keep_a_verdict_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, renamed, rename = tmp_path / "gate-1.json", [], os.replace
    verdict = Fidelity(minimum=1.0, mean=1.0, length_error=0.0)

    def rename_after_another(source: Any, target: Any) -> None:
        renamed.append(source)
        if len(renamed) == 1:
            _kept(file, lambda: verdict)
        rename(source, target)

    monkeypatch.setattr(os, "replace", rename_after_another)
    assert _kept(file, lambda: verdict) == verdict
    assert _kept(file, lambda: pytest.fail("it is kept")) == verdict
    assert len(set(renamed)) == 2 and list(tmp_path.iterdir()) == [file]
