"""The guard against mass deletion holds for the index, for each team and for each source."""

from __future__ import annotations

import json

import pytest

from embedding.errors import MassDeleteError
from jobs.config_sections import Limits
from jobs.plan.deletion_guard import Loss, check_deletes
from tests.support.workspace import Workspace, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here")

LIMITS = Limits(max_delete_fraction=0.2, max_delete_rows=10)


def test_what_is_many_of_the_whole_is_refused() -> None:
    with pytest.raises(MassDeleteError, match="30 of 100 rows of the index"):
        check_deletes([Loss("T1", "s1", 60, 15), Loss("T2", "s2", 40, 15)], LIMITS)


def test_few_of_the_whole_may_be_all_of_a_team() -> None:
    with pytest.raises(MassDeleteError, match="11 of 12 rows of team T2"):
        check_deletes([Loss("T1", "s1", 10_000, 0), Loss("T2", "s1", 6, 6), Loss("T2", "s2", 6, 5)], LIMITS)


def test_few_of_the_whole_and_of_each_team_may_be_all_of_a_source() -> None:
    losses = [Loss("T1", "s1", 5_000, 0), Loss("T2", "s1", 5_000, 0), Loss("T1", "s2", 6, 6), Loss("T2", "s2", 6, 6)]
    with pytest.raises(MassDeleteError, match="12 of 12 rows of source s2"):
        check_deletes(losses, LIMITS)


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [Loss("T1", "s1", 10, 10)],  # no more than max_delete_rows
        [Loss("T1", "s1", 1_000, 190), Loss("T2", "s2", 1_000, 190)],  # no more than the fraction, of either
        [Loss("T1", "", 12, 11), Loss("T1", "s1", 1_000, 0)],  # of an unknown source: no group of their own
    ],
)
def test_what_is_few_passes(losses: list[Loss]) -> None:
    check_deletes(losses, LIMITS)


def test_a_team_that_lost_most_of_its_rows_is_not_deleted_unasked(workspace: Workspace) -> None:
    """Neither by a run nor by its steps; the rows of the others would hide it in the fraction of the whole."""
    other = workspace.root / "other"
    (other / "general").mkdir(parents=True)
    many = [message(n, f"the other team has said {n} things") for n in range(40)]
    (other / "general" / "2025-03-03.json").write_text(json.dumps(many))
    with workspace.config.open("a") as config:
        config.write('[[sources]]\nkind = "slack_export"\nuri = "other"\nteam_id = "T02"\n')
        config.write("[limits]\nmax_delete_rows = 2\n")
    assert workspace.run().code == 0
    workspace.day("general", [])
    workspace.day("random", [])
    refused = workspace.run()
    assert refused.code == 5 and "6 of 6 rows of source slack_export-" in refused.err, refused.err
    assert workspace.call("step", "plan", "--run-id", "night").code == 5
    assert workspace.call("step", "publish", "--run-id", "night").code == 5
    assert workspace.call("status").body["index"]["versions"][0]["rows"] == 48
    assert counts(workspace.run("--allow-mass-delete")) == {"deleted": 6}
