"""A source that is taken out of the configuration: its documents stay, and what it could not read ends no run as partial."""

from __future__ import annotations

import pytest

from tests.support.workspace import Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")


def test_a_run_answers_for_what_it_can_read(workspace: Workspace) -> None:
    (workspace.files / "cut.docx").write_bytes(b"PK\x03\x04")
    assert workspace.run().code == 3
    text = workspace.config.read_text()
    start = text.index('[[sources]]\nkind = "files"')
    workspace.config.write_text(text[:start] + text[text.index("[model]") :])
    without = workspace.run()
    assert (without.code, without.body["documents"]["quarantined"]) == (0, 0), without
    assert workspace.quarantine(), "status still tells of it"
    workspace.config.write_text(text)
    assert workspace.run().code == 3
