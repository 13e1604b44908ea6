"""What each change of the source makes a run do, and that the index is right afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexers.base import Index
from tests.support.workspace import DAY, TEAM, TEXTS, Workspace, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here", "small_row_groups")


def test_first_run_publishes_everything(workspace: Workspace, encoder_on_ray: None) -> None:
    ran = workspace.run()
    assert ran.code == 0, ran
    assert ran.body["status"] == "ok"
    assert ran.body["index"] == "messages__v1"
    assert ran.body["documents"]["read"] == 8
    assert counts(ran) == {"embedded": 8}
    assert ran.body["index_rows"] == {"upserted": 8, "deleted": 0, "after": 8}
    assert workspace.verify().code == 0


def test_second_run_does_nothing_and_opens_nothing(ran: Workspace) -> None:
    second = ran.run()
    assert second.code == 0
    assert counts(second) == {}
    assert second.body["index_rows"] == {"upserted": 0, "deleted": 0, "after": 8}
    assert second.body["partitions"] == {"listed": 4, "opened": 0}
    assert second.body["documents"]["read"] == 0
    assert ran.verify().code == 0


def test_edit_embeds_one(ran: Workspace, encoder_on_ray: None) -> None:
    messages = ran.messages("general")
    messages[1] |= {"text": "Lunch is at one today", "edited": {"user": "U1", "ts": "1741000000.000000"}}
    ran.day("general", messages)
    assert counts(ran.run()) == {"embedded": 1}
    assert ran.verify().code == 0


def test_deleted_message_leaves_the_index(ran: Workspace) -> None:
    ran.day("general", ran.messages("general")[1:])
    assert counts(ran.run()) == {"deleted": 1}
    hits = ran.call("search", TEXTS[0], "--team", TEAM).body["hits"]
    assert TEXTS[0] not in [hit["text"] for hit in hits]
    assert ran.verify().code == 0


def test_renamed_channel_updates_its_rows(ran: Workspace) -> None:
    ran.rename("C1", "general", "lobby")
    assert counts(ran.run()) == {"updated": 4}
    assert ran.verify().code == 0


def test_same_text_again_reuses_its_vector(ran: Workspace, encoder_on_ray: None) -> None:
    ran.day("random", [*ran.messages("random"), message(50, TEXTS[0])])
    assert counts(ran.run()) == {"reused": 1}
    assert ran.verify().code == 0


def test_removed_file_is_deleted(ran: Workspace) -> None:
    (ran.files / "notes.txt").unlink()
    assert counts(ran.run()) == {"deleted": 1}
    assert ran.verify().code == 0


def test_unreadable_day_deletes_nothing(ran: Workspace) -> None:
    (ran.export / "general" / f"{DAY}.json").write_text('[{"type": "message", "ts": "1')
    broken = ran.run()
    assert broken.code == 3
    assert counts(broken) == {}
    assert broken.body["documents"]["quarantined"] == 1
    assert ran.quarantine() == {"bad_json": 1}
    assert ran.verify().code == 0
    again = ran.run()
    assert again.code == 3, "still in quarantine from the earlier run"
    assert again.body["partitions"]["opened"] == 0


def test_mended_day_leaves_quarantine(ran: Workspace) -> None:
    good = ran.messages("general")
    (ran.export / "general" / f"{DAY}.json").write_text("not json")
    assert ran.run().code == 3
    ran.day("general", [*good, message(60, "It was mended")])
    mended = ran.run()
    assert mended.code == 0
    assert counts(mended) == {"embedded": 1}
    assert ran.quarantine() == {}
    assert ran.verify().code == 0


def test_changed_display_name_embeds_the_mentions_only(ran: Workspace) -> None:
    ran.day("random", [*ran.messages("random"), message(70, "ask <@U1> about it")])
    assert counts(ran.run()) == {"embedded": 1}
    ran.write_json("users.json", [{"id": "U1", "name": "ada", "profile": {"display_name": "Countess"}}])
    changed = ran.run()
    assert changed.body["chunks"]["embedded"] == 1
    assert ran.verify().code == 0


def test_scope_leaves_the_rest_alone(ran: Workspace) -> None:
    ran.day("general", [*ran.messages("general"), message(80, "in general")])
    ran.day("random", ran.messages("random")[1:])
    scoped = ran.run("--channel", "C1")
    assert counts(scoped) == {"embedded": 1}
    assert counts(ran.run()) == {"deleted": 1}
    assert ran.verify().code == 0


def test_plan_changes_no_index(ran: Workspace) -> None:
    ran.day("general", [*ran.messages("general"), message(90, "a planned text")])
    planned = ran.call("plan")
    assert planned.code == 0
    assert planned.body["chunks"]["embedded"] == 1
    assert planned.body["tokens"]["embedded"] > 0
    assert ran.verify().code == 4, "what is planned is pending"
    assert counts(ran.run()) == {"embedded": 1}
    assert ran.verify().code == 0


def test_day_in_two_partitions_survives_the_loss_of_one(ran: Workspace) -> None:
    """One message in two day files: when the file that owns it loses it, the other still has it."""
    twice = message(1, TEXTS[1])
    ran.day("general", [twice], day="2025-03-04")
    assert counts(ran.run()) in ({}, {"updated": 1})
    ran.day("general", [], day="2025-03-04")
    ran.run()
    assert ran.verify().body["index_rows"] == 8
    ran.day("general", [m for m in ran.messages("general") if m["ts"] != twice["ts"]])
    assert counts(ran.run()) == {"deleted": 1}
    assert ran.verify().code == 0


def test_mass_delete_is_refused(ran: Workspace) -> None:
    with ran.config.open("a") as config:
        config.write("[limits]\nmax_delete_rows = 2\n")
    ran.day("general", [])
    refused = ran.run()
    assert refused.code == 5
    assert "--allow-mass-delete" in refused.err
    assert ran.call("status").body["index"]["versions"][0]["rows"] == 8
    assert counts(ran.run("--allow-mass-delete")) == {"deleted": 4}
    assert ran.verify().code == 0


def test_purged_text_does_not_come_back(ran: Workspace, encoder_on_ray: None) -> None:
    receipt = ran.call("purge", "--team", TEAM, "--channel", "C1")
    assert receipt.code == 0
    assert receipt.body["removed"]["index"] == 4
    assert receipt.body["removed"]["vectors"] == 4
    assert ran.verify().code == 0
    ran.day("general", [*ran.messages("general"), message(2_000_000_000 - 1_740_960_000, "said after the purge")])
    assert counts(ran.run()) == {"embedded": 1}
    assert ran.verify().code == 0
    needle = TEXTS[2].encode()
    left = [p for p in (ran.root / "state").rglob("*") if p.is_file() and needle in p.read_bytes()]
    assert left == []


@pytest.mark.parametrize("what", ["removed", "added"])
def test_verify_sees_and_mends_a_row_changed_behind_its_back(ran: Workspace, what: str) -> None:
    from indexers import open_index

    index = open_index("milvus", str(ran.root / "state" / "milvus.db"), "messages", "")
    rows = [batch.to_pylist() for batch in index.scan("messages__v1")]
    some = rows[0][0]
    if what == "removed":
        index.delete("messages__v1", [some["chunk_id"]])
    else:
        _add_ghost(index)
    index.close()
    seen = ran.verify()
    assert seen.code == 4
    assert seen.body["differences"]["missing" if what == "removed" else "ghost"] == 1
    assert sum(seen.body["differences"].values()) == 1
    mended = ran.verify("--repair")
    assert mended.code == 0 and mended.body["repaired"] == 1
    assert ran.verify().code == 0


def _add_ghost(index: Index) -> None:
    import numpy as np
    import pyarrow as pa

    from indexers.rows import INDEX_ROW

    row: dict[str, object] = {f.name: "x" if f.type == pa.string() else 1 for f in INDEX_ROW} | {"mentions": ["x"]}
    row["has_file"] = True
    row |= {"chunk_id": f"{TEAM}/m/C1/9.9#0", "team_id": TEAM, "meta": "{}", "vector": list(np.eye(384)[0])}
    index.upsert("messages__v1", pa.Table.from_pylist([row], schema=INDEX_ROW))


def test_state_of_another_space_is_refused(ran: Workspace) -> None:
    ran.config.write_text(ran.config.read_text().replace('backend = "hash"', 'backend = "torch"'))
    refused = ran.run()
    assert refused.code == 5
    assert "space" in refused.err


def test_lost_index_is_rebuilt_from_stored_vectors(ran: Workspace) -> None:
    import shutil

    lost = ran.root / "state" / "milvus.db"
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    rebuilt = ran.run()
    assert counts(rebuilt) == {"reused": 8}
    assert ran.verify().code == 0


def test_empty_root_is_an_error(ran: Workspace) -> None:
    import shutil

    shutil.rmtree(ran.export)
    assert ran.run().code == 2
    ran.export.mkdir()
    empty = ran.run()
    assert empty.code == 2 and "never" in empty.err
    assert Path(ran.export).exists()
