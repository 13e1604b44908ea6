"""Slack exports end to end: packed anew, emptied, made private."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from jobs.state.store import State
from tests.support.workspace import TEXTS, Workspace, counts

pytestmark = pytest.mark.usefixtures("encoder_here")


def pack(space: Workspace, prefix: str = "", separator: str = "/") -> None:
    with zipfile.ZipFile(space.root / "export.zip", "w") as archive:
        for path in sorted(space.export.rglob("*.json")):
            name = prefix + str(path.relative_to(space.export))
            archive.writestr(name.replace("/", separator), path.read_bytes())


def private(space: Workspace) -> dict[str, bool]:
    """Whether only members may see a text, by the text."""
    rows = State(space.root / "state").read("chunks", ["text", "meta"]).to_pylist()
    return {row["text"]: bool(json.loads(row["meta"]).get("private")) for row in rows}


@pytest.fixture
def zipped(tmp_path: Path) -> Workspace:
    space = Workspace(tmp_path / "ws", files=False)
    space.config.write_text(space.config.read_text().replace('uri = "export"', 'uri = "export.zip"'))
    pack(space)
    assert space.run().code == 0
    return space


def test_an_export_that_is_packed_anew_changes_nothing(zipped: Workspace) -> None:
    for prefix, separator in (("", "\\"), ("./", "/"), ("My Export/", "/")):
        pack(zipped, prefix, separator)
        again = zipped.run()
        assert again.code == 0 and counts(again) == {}, again
        assert again.body["partitions"]["opened"] == 2
    assert zipped.verify().code == 0


def test_what_was_emptied_is_gone_and_what_became_private_says_so(zipped: Workspace) -> None:
    assert private(zipped) == dict.fromkeys(TEXTS, False)
    emptied = zipped.messages("general")
    emptied[0] |= {"text": "", "edited": {"user": "U1", "ts": "1740990000.000000"}}
    emptied[1] |= {"text": "", "files": [{"id": "F1", "mode": "tombstone"}]}
    zipped.day("general", emptied)
    zipped.channels({"C1": "general"})
    zipped.write_json("groups.json", [{"id": "C2", "name": "random"}])
    pack(zipped)
    changed = zipped.run()
    assert changed.code == 0 and counts(changed) == {"deleted": 2, "updated": 2}
    assert changed.body["documents"]["skipped"] == {"empty_text": 2}
    assert private(zipped) == dict.fromkeys(TEXTS[2:4], False) | dict.fromkeys(TEXTS[4:], True)
    assert zipped.verify().code == 0
