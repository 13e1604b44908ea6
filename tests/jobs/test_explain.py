"""`explain` says of a document where it is and why; of another team's, nothing."""

from __future__ import annotations

from typing import Any

import pytest

from embedding.ids import file_id, message_id
from indexers import open_index
from jobs.config import load_config
from tests.support.command_line import invoke
from tests.support.workspace import START, TEAM, TEXTS, Workspace, message

pytestmark = pytest.mark.usefixtures("encoder_here")


def doc(number: int, channel: str = "C1", team: str = TEAM) -> str:
    return message_id(team, channel, f"{START + number}.000100")


def explain(space: Workspace, wanted: str, *more: str, team: str = TEAM) -> Any:
    told = space.call("explain", wanted, "--team", team, *more)
    assert told.code == 0, told
    return told.body


def test_a_document_that_is_published_and_its_chunk(ran: Workspace) -> None:
    told = explain(ran, doc(0))
    [run] = ran.call("status").body["last_runs"]
    assert (told["verdict"], told["kind"], told["channel_id"]) == ("published", "message", "C1")
    assert (told["id"], told["state"]) == (doc(0), "published")
    assert ran.call("explain", doc(0)).body == told, "the id names its team"
    [reading] = told["readings"]
    assert (reading["partition"], reading["owns"], reading["run_id"]) == ("C1/2025-03-03", True, run["run_id"])
    assert reading["read_at"] == run["started_at"]
    [chunk] = told["chunks"]
    assert chunk["vector_run"] == run["run_id"] and "text" not in chunk and TEXTS[0] not in str(told)
    assert chunk["indexes"] == [
        {
            "version": "messages__v1",
            "live": True,
            "row": True,
            "ledger": True,
            "current": True,
            "run_id": run["run_id"],
        }
    ]
    assert explain(ran, chunk["chunk_id"]) == told, "the id of a chunk stands for its document"
    assert explain(ran, doc(0), "--text")["chunks"][0]["text"] == TEXTS[0]


def test_a_text_that_was_encoded_before_is_reused_and_the_run_that_encoded_it_is_named(ran: Workspace) -> None:
    first = ran.call("status").body["last_runs"][0]["run_id"]
    ran.day("general", [*ran.messages("general"), message(20, TEXTS[0])])
    assert ran.run().code == 0
    [chunk] = explain(ran, doc(20))["chunks"]
    assert chunk["vector_run"] == first != chunk["indexes"][0]["run_id"]


def test_a_document_of_two_sources_names_both(ran: Workspace) -> None:
    other = ran.root / "other"
    (other / "general").mkdir(parents=True)
    for name in ("users.json", "channels.json", "general/2025-03-03.json"):
        (other / name).write_text((ran.export / name).read_text())
    ran.config.write_text(
        f'[[sources]]\nkind = "slack_export"\nuri = "other"\nteam_id = "{TEAM}"\n' + ran.config.read_text()
    )
    assert ran.run().code == 0
    told = explain(ran, doc(0))
    assert told["verdict"] == "published"
    assert sorted(reading["owns"] for reading in told["readings"]) == [False, True]
    assert len({reading["source_id"] for reading in told["readings"]}) == 2


def test_a_file_that_cannot_be_read_is_in_quarantine_with_its_reason(ran: Workspace) -> None:
    (ran.files / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    assert ran.run().code == 3
    told = explain(ran, file_id(TEAM, "broken.pdf"))
    [row] = told["quarantine"]
    assert (told["verdict"], row["step"], row["partition"], row["attempts"]) == (
        "quarantined",
        "extract",
        "broken.pdf",
        1,
    )
    assert row["reason"] in told["because"]
    assert explain(ran, file_id(TEAM, "notes.txt"))["verdict"] == "published"


def test_a_file_of_a_kind_that_is_not_searched_is_ignored_as_status_has_it(ran: Workspace) -> None:
    (ran.files / "plan.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    assert ran.run().code == 0
    said = ran.call("status").body["quarantine"]
    assert (said["ignored"], said["reasons"]) == ({"unsupported_type": 1}, {})
    told = explain(ran, file_id(TEAM, "plan.png"))
    [row] = told["quarantine"]
    assert (told["verdict"], told["state"], row["ignored"]) == ("ignored", "unknown", True)
    lines = invoke(["explain", told["id"], "--config", str(ran.config)]).stdout.splitlines()
    assert lines[0] == f"{told['id']}: ignored; unsupported_type: image/png; nothing of this kind is searched"
    assert lines[-1].startswith("  ignored   ") and "quarantine" not in " ".join(lines)


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_a_file_without_text_was_read_and_has_nothing_to_embed(ran: Workspace, content: bytes) -> None:
    name = "\u30c6" * 64 + "/empty file.txt"  # of an id that is cut
    for file in (ran.files / "empty.txt", ran.files / name):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    done = ran.run().body
    assert done["documents"]["skipped"] == {"empty_text": 2}
    for path in ("empty.txt", name):
        told = explain(ran, file_id(TEAM, path))
        assert (told["verdict"], told["state"]) == ("empty", "unknown") and told["because"].startswith("empty_text: ")
        [reading] = told["readings"]
        assert (reading["run_id"], told["chunks"]) == (done["run_id"], [])
    assert explain(ran, file_id("T02", "empty.txt"), team="T02")["verdict"] == "absent", "it is another team's"
    assert explain(ran, file_id(TEAM, "Empty.txt"))["verdict"] == "absent"
    said = invoke(["explain", file_id(TEAM, "empty.txt"), "--config", str(ran.config)]).stdout
    assert "\n  read from  files-" in said


def test_a_file_that_was_emptied_is_empty_once_its_text_has_gone(ran: Workspace) -> None:
    (ran.files / "notes.txt").write_bytes(b"")
    assert explain(ran, file_id(TEAM, "notes.txt"))["verdict"] == "published", "no run has read it yet"
    assert ran.call("step", "extract", "--run-id", "r1").code == 0
    told = explain(ran, file_id(TEAM, "notes.txt"))
    assert told["verdict"] == "empty" and told["because"].endswith("; the next run deletes its rows")
    assert ran.run().code == 0
    told = explain(ran, file_id(TEAM, "notes.txt"))
    assert (told["verdict"], told["left_over"]) == ("empty", {}) and "next run" not in told["because"]


def test_a_message_of_a_day_that_could_not_be_read_is_in_quarantine_with_it(ran: Workspace) -> None:
    (ran.export / "general" / "2025-03-09.json").write_text('[{"type": "message", "text": "cut off')
    assert ran.run().code == 3
    at = 1741521600  # noon of that day
    told = explain(ran, f"{TEAM}/m/C1/{at}.000100")
    assert told["state"] == "quarantined" and told["quarantine"][0]["partition"] == "C1/2025-03-09"
    for other in (f"{TEAM}/m/C1/{at + 86_400}.000100", f"{TEAM}/m/C2/{at}.000100", f"{TEAM}/m/C1/noon"):
        assert explain(ran, other)["state"] == "unknown"


def test_what_was_purged_says_by_which_run_and_until_when(ran: Workspace) -> None:
    ran.call("purge", "--team", TEAM, "--ids", doc(1))
    assert ran.run().code == 0
    told = explain(ran, doc(1))
    assert (told["verdict"], told["chunks"], len(told["purges"])) == ("purged", [], 1)
    assert told["purges"][0]["run_id"] in told["because"]
    ran.call("purge", "--team", TEAM, "--channel", "C2")
    assert explain(ran, doc(0, "C2"))["verdict"] == "purged"
    assert explain(ran, doc(0))["verdict"] == "published"


def test_what_is_missing_beside_a_record_that_cannot_be_read_is_held_back(ran: Workspace) -> None:
    kept = [one for one in ran.messages("general") if one["text"] != TEXTS[1]]
    ran.day("general", [*kept, {"type": "message", "user": "U1", "text": "of no time"}])
    assert ran.run().code == 3
    told = explain(ran, doc(1))
    assert told["verdict"] == "held_back" and told["chunks"][0]["indexes"][0]["row"]


def test_what_is_deleted_in_its_source_waits_for_no_one(ran: Workspace) -> None:
    ran.day("general", [one for one in ran.messages("general") if one["text"] != TEXTS[1]])
    assert ran.run().code == 0
    told = explain(ran, doc(1))
    assert told["verdict"] in ("deleted", "absent") and not told["chunks"] and not told["left_over"]


def test_a_renamed_channel_makes_rows_that_are_not_current_until_the_next_run(ran: Workspace) -> None:
    ran.rename("C2", "random", "chatter")
    assert ran.call("step", "extract", "--run-id", "r1").code == 0
    told = explain(ran, doc(0, "C2"))
    assert told["verdict"] == "waiting" and "1 of 1 chunks" in told["because"] and told["state"] == "pending"
    assert (told["chunks"][0]["indexes"][0]["row"], told["chunks"][0]["indexes"][0]["current"]) == (True, False)
    assert ran.run().code == 0
    assert explain(ran, doc(0, "C2"))["verdict"] == "published"


def test_every_version_says_whether_it_has_it(ran: Workspace) -> None:
    assert ran.call("reindex").code == 0
    ran.day("general", [message(0, "said otherwise"), *ran.messages("general")[1:]])
    assert ran.run().code == 0
    told = explain(ran, doc(0))
    found = {one["version"]: (one["live"], one["row"], one["current"]) for one in told["chunks"][0]["indexes"]}
    assert found == {"messages__v1": (False, True, False), "messages__v2": (True, True, True)}


@pytest.mark.parametrize("wanted", [doc(999), file_id(TEAM, "no/such.md"), "nonsense", f"{TEAM}/m/", "", "#3"])
def test_what_was_never_seen_is_absent(ran: Workspace, wanted: str) -> None:
    told = explain(ran, wanted)
    assert (told["verdict"], told["chunks"], told["quarantine"], told["purges"]) == ("absent", [], [], [])
    assert told["state"] == "unknown"


def test_of_another_teams_document_nothing_is_said(ran: Workspace) -> None:
    (ran.files / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    ran.run()
    ran.call("purge", "--team", TEAM, "--ids", doc(1))
    never = explain(ran, doc(999, team="T02"), team="T02")
    for wanted in (doc(0), doc(1), file_id(TEAM, "broken.pdf"), doc(0, team="T02")):
        assert explain(ran, wanted, team="T02") == never | {"id": wanted}


def test_a_person_reads_the_verdict_first(ran: Workspace) -> None:
    said = invoke(["explain", doc(0), "--team", TEAM, "--config", str(ran.config)])
    assert said.exit_code == 0 and said.stdout.startswith(f"{doc(0)}: published; all its chunks"), said.stdout
    assert "messages__v1 (live): there, by run" in said.stdout and TEXTS[0] not in said.stdout


def test_a_row_that_the_index_has_lost_is_not_what_the_next_run_writes(ran: Workspace) -> None:
    config = load_config(ran.config)
    index = open_index("milvus", config.index_uri, config.index.name)
    index.delete("messages__v1", [f"{doc(0)}#0"])
    index.close()
    told = explain(ran, doc(0))
    assert told["verdict"] == "lost" and "verify --repair" in told["because"]
    assert ran.verify("--repair").code == 0 and explain(ran, doc(0))["verdict"] == "published"


def test_a_file_that_came_after_a_purge_and_cannot_be_read_is_in_quarantine(ran: Workspace) -> None:
    ran.call("purge", "--team", TEAM)
    (ran.files / "later.pdf").write_bytes(b"%PDF-1.7\nnothing")
    assert ran.run().code == 3
    assert explain(ran, file_id(TEAM, "later.pdf"))["verdict"] == "quarantined"
    assert explain(ran, file_id(TEAM, "notes.txt"))["verdict"] == "purged"


def test_a_long_name_of_a_file_is_found_in_quarantine(ran: Workspace) -> None:
    name = "\u30c6" * 64 + ".pdf"
    (ran.files / name).write_bytes(b"%PDF-1.7\nnothing")
    assert ran.run().code == 3
    assert len(file_id(TEAM, name)) == 480 and explain(ran, file_id(TEAM, name))["verdict"] == "quarantined"


def test_of_files_whose_long_names_begin_alike_each_is_told_of_alone(ran: Workspace) -> None:
    folder = "\u30c6" * 64
    (ran.files / folder).mkdir()
    for name in ("one.txt", "two.txt"):
        (ran.files / folder / name).write_text(f"the parcel of {name}")
    assert ran.run().code == 0
    told = explain(ran, file_id(TEAM, f"{folder}/one.txt"))
    assert told["verdict"] == "published" and len(told["readings"]) == 1, told["readings"]
    assert explain(ran, file_id(TEAM, f"{folder}/never.txt"))["verdict"] == "absent"
