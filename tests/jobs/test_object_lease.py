"""The lease of a state in an object store: numbered objects that are only created."""

from __future__ import annotations

import json
import pickle
import threading
import time
import uuid
from collections.abc import Callable

import pytest

from embedding.errors import LeaseHeldError
from jobs.state import lease as leases
from jobs.state.hash_key import make_key, stored_key
from jobs.state.lease import Lease, holder
from jobs.state.lease_record import Held, ObjectRecord
from jobs.state.object_path import ObjectPath
from jobs.state.store import State
from tests.support.object_store import Asked, Proxy, Weed


@pytest.fixture
def root(weed: Weed) -> ObjectPath:
    return weed.path(f"lease/{uuid.uuid4().hex}")


def lease(root: ObjectPath, *, run: str = "run", seconds: int = 60, wait: float = 0.0) -> Lease:
    return Lease(root, run_id=run, seconds=seconds, wait=wait)


def written(root: ObjectPath, number: int, **more: object) -> Held:
    """A lease of a process on another host."""
    said: Held = {"token": f"t{number}", "number": number, "run_id": f"r{number}", "host": "elsewhere", "machine": "m"}
    said |= {"pid": 1, "process_started": 1.0, "beat": 5.0, "seconds": 600, "expires": time.time() + 600, **more}
    (root / "lease" / f"{number:020}.json").write_bytes(json.dumps(said).encode())
    return said


def test_each_holder_has_the_next_number(root: ObjectPath) -> None:
    numbers = []
    for _ in range(20):
        with lease(root) as held:
            numbers.append(held.number)
            assert holder(root) == "run" and not held.took_over
        assert holder(root) == ""
    assert numbers == list(range(1, 21))
    assert len([p for p in (root / "lease").iterdir() if p.name.endswith(".json")]) <= 17, "old numbers are removed"


def test_of_many_at_once_one_holds_it_and_each_number_is_one_s(root: ObjectPath) -> None:
    numbers, together, most = [], [0], [0]
    mutex = threading.Lock()

    def work() -> None:
        for _ in range(3):
            with lease(root, wait=60) as held:
                with mutex:
                    numbers.append(held.number)
                    together[0] += 1
                    most[0] = max(most[0], together[0])
                held.check()
                with mutex:
                    together[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == sorted(set(numbers)) and len(numbers) == 24 and most == [1]


def test_one_that_comes_while_another_looks_at_the_tables_is_seen(root: ObjectPath) -> None:
    """It looked for a holder first, for numbers in all tables then, and took the number after the new holder's."""
    first = lease(root, run="first")

    def meanwhile() -> int:
        first.__enter__()
        return 0

    second = Lease(root, run_id="second", seconds=60, newest=meanwhile)
    with pytest.raises(LeaseHeldError, match="run first"):
        second.__enter__()
    assert first.held()
    first.__exit__(None, None, None)


def test_of_two_keys_that_are_made_at_once_one_counts(root: ObjectPath) -> None:
    keys = [State(root, fence=1).hash_key, State(root, fence=1).hash_key]
    assert keys[0] == keys[1] == make_key(root) == stored_key(root)


def test_another_run_is_told_who_holds_it(root: ObjectPath) -> None:
    with lease(root, run="first"), pytest.raises(LeaseHeldError, match="run first .process"), lease(root, run="second"):
        pass


def test_a_holder_elsewhere_that_falls_silent_is_taken_over_and_finds_out(root: ObjectPath) -> None:
    theirs = written(root, 7, seconds=2)
    proof = leases.LeaseProof(ObjectRecord(root), theirs["token"])
    assert proof.held() and holder(root) == "r7"
    with lease(root, wait=10) as held:
        assert (held.number, held.took_over) == (8, True)
        assert not proof.held()
        ObjectRecord(root).keep(theirs)  # a beat that it sends when it wakes up
        assert not proof.held() and held.held()
        with pytest.raises(LeaseHeldError):
            pickle.loads(pickle.dumps(proof)).check()


def test_what_a_silent_holder_commits_when_it_wakes_up_is_refused(root: ObjectPath) -> None:
    sleeping = State(root, fence=7)
    sleeping.change("runs", [{"run_id": "before", "_delete": False}])
    with Lease(root, run_id="r", seconds=60, newest=State(root).newest_fence) as held:
        assert held.number == 8, "higher than any that has committed"
        State(root).for_writing(held.number).change("runs", [{"run_id": "mine", "_delete": False}])
        with pytest.raises(LeaseHeldError):
            sleeping.change("runs", [{"run_id": "late", "_delete": False}])
    assert sorted(State(root).read("runs", ["run_id"])["run_id"].to_pylist()) == ["before", "mine"]


def test_a_holder_elsewhere_that_beats_keeps_it(root: ObjectPath) -> None:
    theirs = written(root, 3, seconds=3)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.5):
            ObjectRecord(root).keep({**theirs, "beat": time.monotonic()})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(LeaseHeldError), lease(root, wait=6):
            pass
    finally:
        stop.set()
        thread.join()


def test_a_process_of_this_machine_that_is_gone_holds_nothing(
    root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(root, 3, seconds=600)
    monkeypatch.setattr(leases, "is_here", lambda held: True)
    monkeypatch.setattr(leases, "is_gone", lambda held: True)
    with lease(root) as held:
        assert (held.number, held.took_over) == (4, False)


@pytest.mark.parametrize("hours", [-24, 24])
def test_this_machine_s_clock_does_not_matter(root: ObjectPath, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + hours * 3600)
    written(root, 3, seconds=600)
    with pytest.raises(LeaseHeldError), lease(root):
        pass


def test_one_so_slow_that_its_number_was_given_up_meanwhile_is_refused(root: ObjectPath) -> None:
    record = ObjectRecord(root)
    slow = written(root, 5)
    (root / "lease" / f"{5:020}.json").unlink()
    written(root, 6)
    assert not record.take(slow) and record.number() == 6
    assert not (root / "lease" / f"{5:020}.json").exists()


def test_a_creation_whose_answer_was_lost_is_ours(root: ObjectPath, weed: Weed) -> None:
    def lose(asked: Asked) -> str:
        mine = asked.method == "PUT" and "/lease/0" in asked.path
        return "lose" if mine and sum(one.path == asked.path for one in proxy.seen) == 1 else ""

    proxy = Proxy(weed, lose)
    with proxy as store, lease(store.path(root.key)) as held:
        assert held.number == 1 and held.held() and not held.took_over
        puts = [one for one in proxy.seen if one.method == "PUT" and "/lease/0" in one.path]
        assert len(puts) == 2, "the answer was lost, and the client asked again"


def test_a_run_that_waits_is_seen_and_let_first(root: ObjectPath) -> None:
    got: list[str] = []

    def second() -> None:
        with lease(root, run="second", wait=30):
            got.append("second")

    with lease(root, run="first") as held:
        assert not held.wanted()
        thread = threading.Thread(target=second)
        thread.start()
        _until(held.wanted)
    held.give_way()
    with lease(root, run="first again", wait=30):
        got.append("first again")
    thread.join()
    assert got == ["second", "first again"]
    assert not list((root / "lease" / "waiting").iterdir())


def test_a_sign_of_one_that_was_killed_while_it_waited_is_not_waited_for(
    root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.state.lease_record.FRESH_SECONDS", 1.0)
    ObjectRecord(root).wait("dead")
    time.sleep(2.1)  # the store's clock counts seconds
    assert not ObjectRecord(root).waited_for()


def _until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)
