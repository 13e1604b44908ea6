"""The model-based test, and the proof that it would see a broken reconciler.

By default some steps, else EMBEDMILL_TEST_STEPS; `make model` takes 5,000; the mutants are in `make test-all`. Every seed
is printed with its steps: given as EMBEDMILL_TEST_SEED, it is the first one, and brings the same again.
"""

from __future__ import annotations

import inspect
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from jobs.extract import ownership
from jobs.plan import plan
from jobs.publish import publisher
from tests.support.in_process import without_ray
from tests.support.machine import Machine
from tests.support.model import Differs

STEPS = int(os.environ.get("EMBEDMILL_TEST_STEPS", "20"))
SEED = int(os.environ.get("EMBEDMILL_TEST_SEED", "1"))


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, small_row_groups: None) -> Iterator[type[Machine]]:
    Machine.base, Machine.counted = tmp_path, Counter()
    with without_ray():
        yield Machine


def play(number: int, steps: int, examples: int = 1) -> None:
    """Sequences of at most so many steps, the same for the same number."""
    run_state_machine_as_test(
        seed(number)(Machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.generate],  # a step costs up to seconds: report the sequence as it was found
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )


def test_whatever_happens_the_index_is_what_the_sources_say(capsys: pytest.CaptureFixture[str]) -> None:
    number = SEED
    while Machine.counted.total() < STEPS:
        before = Machine.counted.total()
        try:
            play(number, steps=20, examples=1 if STEPS <= 20 else 2)
        finally:
            with capsys.disabled():
                print(f"\nmodel: seed {number}, {Machine.counted.total() - before} steps", end="", flush=True)
        number += 1
    with capsys.disabled():
        print(f"\nmodel: {Machine.counted.total()} steps, seeds {SEED} to {number - 1}: {dict(Machine.counted)}")


# -- mutants -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put another code into a function of the program, made from its own source text."""

    def change(function: Any, *replacements: tuple[str, str]) -> None:
        assert isinstance(function, FunctionType)
        text = textwrap.dedent(inspect.getsource(function))
        for old, new in replacements:
            assert text.count(old) == 1, f"{function.__qualname__} has no longer one {old!r}"
            text = text.replace(old, new)
        made: dict[str, Any] = {}
        exec(compile("from __future__ import annotations\n" + text, "<mutant>", "exec"), function.__globals__, made)
        monkeypatch.setattr(function, "__code__", made[function.__name__].__code__)

    return change


def assert_seen(steps: int = 20, examples: int = 50) -> None:
    """Random sequences find the mutant, and it is the model that says so."""
    with pytest.raises(Differs) as found:
        play(SEED, steps, examples)
    print(f"seed {SEED}, {Machine.counted.total()} steps: {str(found.value)[:200]}")


@pytest.mark.long
def test_the_ledger_before_the_index_is_seen(mutate: Callable[..., None]) -> None:
    mutate(
        publisher.Publisher._publish,
        (
            "    for written in self._writers.offer(planned):\n        self._commit(written)\n",
            "    late = []\n"
            "    class Late:\n"
            "        upsert = staticmethod(lambda *given: late.append(given) or [])\n"
            "    for written in WritesHere(Late(), self._writer).offer(planned):\n"
            "        self._commit(written)\n"
            "        self._index.upsert(*late.pop())\n",
        ),
    )
    assert_seen()


@pytest.mark.long
def test_no_check_of_versions_is_seen(mutate: Callable[..., None]) -> None:
    mutate(ownership.rank_owners, ("ORDER BY version DESC NULLS LAST, deleted", "ORDER BY deleted"))
    assert_seen()


@pytest.mark.long
def test_deletes_without_a_check_of_the_scope_are_seen(mutate: Callable[..., None]) -> None:
    mutate(plan.make_plan, ("chunks, published, shard_tokens", "chunks, held, shard_tokens"))
    assert_seen()
