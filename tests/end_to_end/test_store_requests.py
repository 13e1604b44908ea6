"""What a command asks of an object store, as a number: each request is a round trip, and some are paid for."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.object_store import Proxy, Weed
from tests.support.workspace import Ran, Workspace, counts

pytestmark = pytest.mark.usefixtures("encoder_here")

# As measured, and a twentieth more. Most are of opening the eight tables, once each: with it go the entries that a log
# has since its last checkpoint.
OF_A_RUN, OF_STATUS = 240, 160
WITH_FILES_JOINED = 310  # one run in eight writes the small files of ``runs`` as one
RUNS = 12  # of which each commits twice to ``runs``: more than there are between two checkpoints


class Counted(Workspace):
    """A workspace with its state in a store, which counts what is asked of that."""

    def __init__(self, root: Path, proxy: Proxy, uri: str) -> None:
        super().__init__(root)
        self._proxy = proxy
        storage = f'[state.storage]\nendpoint = "{uri}"\nallow_http = true\n'
        self.config.write_text(
            self.config.read_text() + f'[state]\nuri = "s3://lake/states/{uuid.uuid4().hex}"\n{storage}'
        )

    def asked(self, command: Callable[[], Ran]) -> int:
        """Requests of a command that changes nothing."""
        self._proxy.seen.clear()
        ran = command()
        assert ran.code == 0, ran
        return len(self._proxy.seen)

    def asked_by_run(self) -> int:
        """Requests of a run, which must have nothing to do."""

        def run() -> Ran:
            ran = self.run()
            assert counts(ran) == {}, ran
            return ran

        return self.asked(run)


@pytest.fixture
def space(tmp_path: Path, weed: Weed) -> Iterator[Counted]:
    proxy = Proxy(weed)
    with proxy as store:
        yield Counted(tmp_path / "ws", proxy, store.uri)


def test_what_is_asked_does_not_grow_with_history(space: Counted) -> None:
    assert space.run().code == 0
    asked = [space.asked_by_run() for _ in range(RUNS)]
    assert sorted(asked)[-2] <= OF_A_RUN and max(asked) <= WITH_FILES_JOINED, asked
    assert space.asked(lambda: space.call("status")) <= OF_STATUS


def test_what_is_asked_does_not_grow_with_teams(space: Counted) -> None:
    teams = [f"T{number:02}" for number in range(24)]  # more than there are buckets
    for team in teams:
        folder = space.root / team
        folder.mkdir()
        (folder / "notes.txt").write_text(f"Call the courier of {team} when a door stays shut.\n")
    sources = "".join(f'[[sources]]\nkind = "files"\nuri = "{team}"\nteam_id = "{team}"\n' for team in teams)
    space.config.write_text(sources + space.config.read_text())
    ran = space.run()
    assert ran.code == 0 and counts(ran) == {"embedded": 8 + len(teams)}, ran
    assert space.asked_by_run() <= OF_A_RUN
    assert space.asked(lambda: space.call("status")) <= OF_STATUS
