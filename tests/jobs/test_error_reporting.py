"""A fault that no code foresaw is told by its type and the last place in our own code, never by its message."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from jobs.state.parts import write_part
from jobs.state.tables import TABLES
from jobs.telemetry.error_reporting import describe, without_messages

SECRET = "a text of a document"


def fault_in(folder: Path) -> BaseException:
    """One that is raised by a library, called by a module two folders down."""
    with pytest.raises(pa.ArrowInvalid, match=SECRET) as caught:
        write_part(folder, "chunks", pa.table({name: [SECRET] for name in TABLES["chunks"].schema.names}))
    return caught.value


def test_the_place_is_the_last_of_ours_however_deep_its_folder(tmp_path: Path) -> None:
    said = describe(fault_in(tmp_path))
    assert said.startswith("unexpected ArrowInvalid at jobs/state/parts.py:") and SECRET not in said


def test_what_a_worker_says_is_passed_on(tmp_path: Path) -> None:
    fault = fault_in(tmp_path)
    with pytest.raises(Exception) as caught, without_messages():
        raise fault
    assert describe(caught.value) == describe(fault)


def test_of_a_fault_that_is_not_in_our_code_no_place_is_said() -> None:
    with pytest.raises(ValueError) as caught:
        int(SECRET)
    assert describe(caught.value) == "unexpected ValueError at ?"
