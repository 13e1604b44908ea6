"""The faults: each lets a run begin, strikes once, and returns whether it met it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from jobs.state.store import State
from tests.chaos.world import World
from tests.jobs.test_damaged_state import DAMAGES, REBUILT
from tests.support.milvus_server import MilvusServer
from tests.support.proxy import Proxy
from tests.support.workspace import folder_of

WAIT_SECONDS = 120.0

# What a process is called by its command line; the first that matches.
PROCESSES = {
    "Spark's JVM": "org.apache.spark.deploy.SparkSubmit",
    "a Spark worker": "pyspark.daemon",
    "Ray's raylet": "/raylet/raylet",
    "Ray's GCS": "gcs_server",
    "an encode actor": "ray::MapWorker(MapBatches(EncodeShard",
    "a Ray worker": "ray::",
    "the process that encodes alone": "from jobs.embed.encoder_process",
}
# Moves the clock of every Python process below a command.
_CLOCK = """
import os, time
_by = float(os.environ["CHAOS_CLOCK_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _by
time.time_ns = lambda: _time_ns() + int(_by * 1e9)
"""


def kill_driver(world: World) -> bool:
    """SIGKILL to the command itself at a random moment of a usual run."""
    return _kill_after(world, world.start(), world.random.uniform(0.3, world.usual_seconds))


def kill_encoding() -> Callable[[World], bool]:
    """SIGKILL to the command at a random moment after its first shard went to the encoder."""
    life = 8.0  # seconds, learnt by missing it

    def strike(world: World) -> bool:
        nonlocal life
        run = world.start()
        deadline = time.monotonic() + WAIT_SECONDS
        while run.poll() is None and not world.encoding():
            assert time.monotonic() < deadline, "the run does not come to encode"
            time.sleep(0.01)
        met = _kill_after(world, run, world.random.uniform(0, life))
        if not met:
            life *= 0.75
        return met

    return strike


def kill_process(name: str) -> Callable[[World], bool]:
    """SIGKILL to one of the engines' processes at a random moment of its life, which is learnt by missing it."""
    life = 1 / 3  # of a usual run

    def strike(world: World) -> bool:
        nonlocal life
        run = world.start()
        deadline = time.monotonic() + WAIT_SECONDS
        delay: float | None = None
        while run.poll() is None and time.monotonic() < deadline:
            found = _children(run.pid, name)
            if found and delay is None:
                delay = time.monotonic() + world.random.uniform(0, world.usual_seconds * life)
            if found and delay is not None and time.monotonic() >= delay:
                with suppress(psutil.NoSuchProcess):
                    world.random.choice(found).kill()
                    with suppress(subprocess.TimeoutExpired):
                        run.wait(WAIT_SECONDS)
                    _end(world, run)
                    return True
            time.sleep(0.02)
        _end(world, run)
        life /= 2
        return False

    return strike


def _children(pid: int, name: str) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if next((n for n, part in PROCESSES.items() if part in line), "") == name:
                    found.append(child)
    return found


def _end(world: World, run: subprocess.Popen[bytes]) -> None:
    """End a run. Its child processes must end by themselves, which ``recover`` checks."""
    with suppress(psutil.NoSuchProcess):
        due = time.monotonic() + WAIT_SECONDS
        world.orphans += [(due, child) for child in psutil.Process(run.pid).children(recursive=True)]
    run.kill()
    run.communicate()


def _kill_after(world: World, run: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kill a run that lasts longer; whether it did."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(seconds)
    met = run.poll() is None
    _end(world, run)
    return met


def mount(*arguments: str) -> bool:
    """Whether a file system could be mounted, which only root may, and not everywhere."""
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def fill_disk(world: World) -> bool:
    """The state's disk has room for a random part of what a run writes."""
    root = world.hit.root / "state"
    used = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) // 1024
    mount("-o", f"remount,size={used + world.random.randint(300, 20_000)}k", str(root))
    try:
        run = world.start()
        _, said = run.communicate(timeout=WAIT_SECONDS * 2)
        assert b"Traceback" not in said, said
        return run.returncode != 0
    finally:
        mount("-o", "remount,size=2g", str(root))


def move_clock(world: World) -> bool:
    """A run on a machine whose clock is hours or days off, either way, killed half of the times."""
    folder = world.hit.root / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CLOCK)
    seconds = world.random.choice([-86_400 * 400, -7_200, -90, 90, 7_200, 86_400 * 400])
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = world.start(environment={"CHAOS_CLOCK_SECONDS": str(seconds), "PYTHONPATH": path})
    _kill_after(world, run, world.random.uniform(1, world.usual_seconds * 2))
    return True


def damage_state(world: World) -> bool:
    """A file of one of the state's tables is cut, garbled or gone: named by a run that meets it, and rebuilt."""
    state = State(world.hit.root / "state")
    table = world.random.choice([name for name in REBUILT if state.count(name)])
    needed = world.stored() & world.indexed()
    world.random.choice(DAMAGES)(folder_of(state) / table)
    refused = world.hit.run("--allow-mass-delete")
    assert refused.code == 0 or refused.code == 1 and f"table '{table}' is damaged" in refused.err, refused
    mended = world.hit.verify("--repair")
    assert mended.code in (0, 4), mended  # 4: the source has changed, and no run has come so far
    assert mended.body["rebuilt"] == [table] or not refused.code
    assert needed <= world.stored(), "a vector that the index has was lost"
    return bool(mended.body["rebuilt"])


def two_writers(world: World) -> bool:
    """Two runs at once: one waits for the other, or says that it will not."""
    first = world.start()
    time.sleep(world.random.uniform(0, world.usual_seconds / 2))
    waits = world.random.random() < 0.5
    second = world.start(*(["--wait", "120"] if waits else []))
    codes = [run.communicate(timeout=WAIT_SECONDS * 3) and run.returncode for run in (first, second)]
    assert 0 in codes and set(codes) <= {0, 5}, codes
    assert not waits or codes == [0, 0], codes
    return True


def while_it_writes(strike: Callable[[World], None]) -> Callable[[World], bool]:
    """A fault of the index's server, in the second half of a usual run; the run is left to end as it can."""

    def struck(world: World) -> bool:
        run = world.start()
        with suppress(subprocess.TimeoutExpired):
            run.wait(world.random.uniform(world.usual_seconds / 2, world.usual_seconds))
        met = run.poll() is None
        strike(world)
        run.communicate(timeout=WAIT_SECONDS * 3)
        return met

    return struck


def kill_server(world: World, server: MilvusServer) -> None:
    """SIGKILL to the server, which is back a little later."""
    server.kill()
    time.sleep(world.random.uniform(0, 3))
    server.start()


def cut_connection(world: World, proxy: Proxy) -> None:
    """Every connection to the index is reset, and new ones are refused for a while."""
    proxy.cut(world.random.uniform(0, 5))
