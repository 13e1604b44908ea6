"""A text that a model was trained on is in no file that training, measuring or registering leaves, whatever fails; and a
purge finds the models that have seen it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.canary import places
from tests.support.canary_bench import Bench, opened_bench
from tests.support.model_families import FAMILIES
from tests.support.workspace import START, TEAM, message

pytestmark = pytest.mark.long
THREADS = 24


def fill(bench: Bench) -> None:
    """Threads of a public channel and of a private one, each with a canary in question and answer."""
    space, canary = bench.space, bench.canary

    def thread(number: int, name: str) -> list[dict[str, object]]:
        root = f"{START + number * 10}.000100"
        said = f"where is the key number {number} {canary(f'{name} asked {number % 3}')}"
        answer = f"the key number {number} hangs by the door {canary(f'{name} answered {number % 3}')}"
        return [
            message(number * 10, said, thread_ts=root),
            message(number * 10 + 1, answer, user="U2", thread_ts=root),
        ]

    space.day("general", [line for number in range(THREADS) for line in thread(number, "public")])
    space.day("random", [line for number in range(100, 104) for line in thread(number, "of another")])
    folder = FAMILIES["bert"](space.root / "tiny")
    text = space.config.read_text().replace('backend = "hash"', f'backend = "torch"\nname = "{folder}"')
    space.config.write_text(
        f'{text}[training]\nteams = ["{TEAM}"]\nbatch_size = 4\nmax_tokens = 32\nthreads = 1\nepochs = 40\n'
        f'checkpoint_steps = 2\n[registry]\ntainted_hours = 0\n[telemetry]\ntextfile = "{bench.outside / "metrics"}"\n'
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with opened_bench(tmp_path_factory.mktemp("canary"), fill) as bench:
        yield bench


def test_what_was_trained_on_is_nowhere_after_a_crash_a_fault_a_measure_and_a_purge(bench: Bench) -> None:
    space = bench.space
    assert bench.run("run")[0] == 0, bench.said()[-2000:]
    found = places(bench.canaries, bench.state)
    assert all(any(where.endswith(":text") for where in found[name]) for name in bench.canaries), (
        "the search finds nothing"
    )

    with bench.start("train", "--threads", "--name", "chat") as process:
        started = time.monotonic()
        while not any(bench.outside.rglob("checkpoint.pt")):
            assert process.poll() is None and time.monotonic() - started < 180, bench.said()[-2000:]
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(children, timeout=60)
    assert any(bench.outside.rglob("checkpoint.pt")) and bench.leaks() == {}, "a checkpoint is weights alone"

    for fault in ("training", "measures"):
        code, body = bench.run("train", "--threads", "--name", fault, faults=fault, debug=True)
        assert code == 1 and body["error"]["message"] == "training: ValueError while training", body
        assert bench.leaks() == {}, fault

    code, made = bench.run("train", "--threads", "--name", "chat")
    assert code == 0 and made["model"] == "models:/chat/1" and made["pairs"] > 10, bench.said()[-2000:]
    assert bench.leaks() == {}
    golden = space.root / "golden.jsonl"
    asked = {"query": bench.canary("public asked 0"), "team": TEAM, "relevant": {f"{TEAM}/m/C1/{START}.000100": 1}}
    golden.write_text(json.dumps(asked) + "\n")
    for words in (("evaluate", str(golden)), ("promote", "chat", "--check"), ("promote", "chat"), ("status",)):
        looks = 1 if words[0] == "promote" else 5  # it asks the registry alone, and is done within a second
        assert bench.run(*words, looks=looks)[0] in (0, 4), (words, bench.said()[-2000:])
        assert bench.leaks() == {}, words

    code, receipt = bench.run("purge", "--team", TEAM, "--channel", "C1")
    assert code == 0 and receipt["models"].keys() == {"models:/chat/1"} and receipt["models"]["models:/chat/1"] > 10
    code, told = bench.run("promote", "chat", looks=1)
    assert code == 4 and "of the documents that it has seen were purged since" in told["reasons"][-1]
    code, cleared = bench.run("gc")
    assert code == 0 and cleared["dropped_models"] == ["models:/chat/1"]
    assert not list((space.root / "registry").rglob("*.safetensors")) and not list(bench.outside.rglob("checkpoint.pt"))
    assert bench.leaks() == {}
