"""The command ``doctor``: what a run needs, looked at without one; before the first, and in an incident."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psutil

from embedding.encoders.backends import is_remote
from embedding.errors import EmbedmillError
from jobs.bodies.doctor import Checked, DoctorBody, Health
from jobs.config import load_config
from jobs.embed.actor_pool import actor_pool
from jobs.engines.class_archive import check_java
from jobs.engines.tested import TESTED, untested
from jobs.pipeline import Pipeline
from jobs.sources import open_sources
from jobs.state.integrity import first_damage
from jobs.state.lease import holder
from jobs.state.object_path import ObjectPath
from jobs.state.state_folder import make_place, state_root
from jobs.state.state_id import state_id
from jobs.state.storage import prove
from jobs.state.work_folder import check_disk
from jobs.telemetry.progress import Progress

if TYPE_CHECKING:
    from jobs.config import Config

CGROUP = Path("/sys/fs/cgroup")
CLOCK_SECONDS = 60.0  # that two clocks may differ
MEMORY_MB = 2_000  # of a driver, an actor and Spark together, at least


class Said(NamedTuple):
    """What a check found."""

    status: Health
    detail: str
    fix: str = ""


def doctor(file: Path, progress: Progress) -> DoctorBody:
    """Look at everything that a run needs. A check that fails keeps no other from being made, if that can be."""
    found: list[Checked] = []

    def check(name: str, look: Callable[[], Said]) -> None:
        start = time.monotonic()
        with progress.phase(name):
            said = _said(look)
        seconds = round(time.monotonic() - start, 3)
        found.append(Checked(name=name, status=said.status, detail=said.detail, fix=said.fix, seconds=seconds))

    opened: list[Config] = []
    check("configuration", lambda: _configuration(file, opened))
    check("versions", _versions)
    if opened:
        [config] = opened
        check("java", lambda: _java(config))
        check("memory", lambda: _memory(config))
        pipelines: list[Pipeline] = []
        if (place := _said(lambda: _place(config))).status == "failed":  # nothing is opened without one
            check("state", lambda: place)
        else:
            check("model", lambda: _model(config, progress, pipelines))
        for pipeline in pipelines:
            try:
                for name, look in _of_pipeline(pipeline):
                    check(name, look)
            finally:
                pipeline.close()
        if not pipelines:
            for name, look in _sources(config):
                check(name, look)
    order: tuple[Health, ...] = ("ok", "warning", "failed")
    return DoctorBody(status=max((one.status for one in found), key=order.index), checks=tuple(found))


def _said(look: Callable[[], Said]) -> Said:
    try:
        return look()
    except EmbedmillError as error:  # its line says what to do
        return Said("failed", str(error), "as it says")
    except Exception as error:
        return Said("failed", f"{type(error).__name__}, which is no error that was foreseen", "set EMBEDMILL_DEBUG=1")


# -- this machine ------------------------------------------------------------------------------------------------------


def _configuration(file: Path, opened: list[Config]) -> Said:
    config = load_config(file)
    opened.append(config)
    return Said("ok", f"{file}: {len(config.sources)} sources, index {config.index.name} ({config.index.kind})")


def _versions() -> Said:
    strange = untested()
    if missing := sorted(name for name, here in strange.items() if here == "none"):
        return Said("failed", f"not installed: {', '.join(missing)}", "pip install embedmill")
    if strange:
        said = ", ".join(f"{name} {here} (tested: {TESTED[name]})" for name, here in sorted(strange.items()))
        return Said("warning", said, "install the tested versions (requirements.txt) if something behaves strangely")
    return Said("ok", f"{len(TESTED)} packages as they were tested")


def _java(config: Config) -> Said:
    try:
        first = check_java().splitlines()[0]
    except EmbedmillError as error:
        small = f"a run over less than {config.spark.in_process_mb} MB of sources needs none"
        local = config.spark.master.startswith("local") and config.spark.in_process_mb
        return Said("warning" if local else "failed", f"{error}; {small}" if local else str(error), "as it says")
    return Said("ok", first)


def _memory(config: Config) -> Said:
    memory, cores, shared = psutil.virtual_memory(), _cores(), _shared_mb()
    total, free = memory.total // 1_000_000, memory.available // 1_000_000
    if (allowed := _allowed_mb()) is not None:  # a container's, of a larger machine
        total, free = min(total, allowed[0]), min(free, allowed[1])
    said = f"{free:,} of {total:,} MB free, {cores} cores"
    if free < MEMORY_MB:
        return Said("warning", said, f"a run takes {MEMORY_MB:,} MB and more; end what else runs here")
    if config.ray.address == "local":
        if shared is not None and shared < config.ray.object_store_mb:
            fix = "start the container with a larger --shm-size, or lower ray.object_store_mb"
            return Said("warning", f"{said}; /dev/shm has {shared:,} MB free of ray.object_store_mb's", fix)
        actor_pool(config.model, shards=config.model.actors, nodes=[{"CPU": cores, "GPU": _gpus()}])  # or it raises
        if config.model.actors > cores and not is_remote(config.model.backend):
            return Said("warning", f"{said}; {config.model.actors} actors", "set model.actors to the cores at most")
    return Said("ok", said)


def _cores() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def _allowed_mb() -> tuple[int, int] | None:
    """What this container may have of memory, and what of that is free; None without a limit."""
    with suppress(OSError, ValueError):
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        return most // 1_000_000, max(0, most - used) // 1_000_000
    return None


def _shared_mb() -> int | None:
    with suppress(OSError):
        return shutil.disk_usage("/dev/shm").free // 1_000_000
    return None


def _gpus() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


# -- what is reached ---------------------------------------------------------------------------------------------------


def _place(config: Config) -> Said:
    make_place(state_root(config))
    return Said("ok", "")


def _model(config: Config, progress: Progress, opened: list[Pipeline]) -> Said:
    pipeline = Pipeline(config, progress)
    opened.append(pipeline)
    space = pipeline.space
    tokens = pipeline.limits.max_tokens
    said = f"{config.model.name}: space {space.space_id}, {space.dim} numbers, chunks of {tokens} tokens"
    if is_remote(config.model.backend):
        return _service(pipeline, said)
    spec = pipeline.encoder()
    judged = spec.cache.is_dir() and any(spec.cache.glob("own-*.json"))
    return Said("ok", said + ("" if judged else "; its first use on this machine takes up to a minute"))


def _service(pipeline: Pipeline, said: str) -> Said:
    from embedding.encoders.choose import open_encoder
    from embedding.encoders.remote.encoder import RemoteEncoder

    with closing(open_encoder(pipeline.encoder("query"))) as encoder:
        start = time.monotonic()
        [vector] = encoder.encode(["embedmill"], np.array([3]))
        took = time.monotonic() - start
        if len(vector) != pipeline.space.dim:
            return Said("failed", f"{said}; the service gives {len(vector)} numbers", "correct model.remote.dim")
        said += f"; the service answered in {took:.2f} s"
        assert isinstance(encoder, RemoteEncoder)
        silent = encoder.prove()
    assert (remote := pipeline.config.model.remote) is not None
    if silent:
        fix = "mend them, or take them out of [model.remote]; the others answer in their place"
        return Said("warning", f"{said}; endpoints that do not answer: {', '.join(silent)}", fix)
    if remote.fallbacks:
        said += f"; all {1 + len(remote.fallbacks)} endpoints are of one space"
    return Said("ok", said)


def _of_pipeline(pipeline: Pipeline) -> Iterator[tuple[str, Callable[[], Said]]]:
    yield "state", lambda: _state(pipeline)
    if isinstance(pipeline.state.root, ObjectPath):
        yield "clock", lambda: _clock(pipeline)
    yield from _sources(pipeline.config)
    yield "index", lambda: _index(pipeline)
    if pipeline.config.ray.address != "local":
        yield "ray", lambda: _ray(pipeline)


def _state(pipeline: Pipeline) -> Said:
    state = pipeline.state
    if isinstance(state.root, ObjectPath):
        prove(state.root)
    elif not os.access(state.root, os.R_OK | os.W_OK | os.X_OK):
        return Said("failed", f"{state.root} cannot be written", "give this user the folder, or set state.uri")
    check_disk(state.root, pipeline.config.limits.min_free_mb)
    if damage := first_damage(state.root):
        return Said("failed", f"{state.root}: {damage}", "run `embedmill verify --repair`")
    writing = holder(state.root)
    said = f"{state.root}: {state.count('chunks'):,} chunks" + (f"; run {writing} is writing" if writing else "")
    if not state.private:
        return Said("warning", f"{said}; other users of this machine may read it", "chmod -R go= the folder")
    return Said("ok", said)


def _clock(pipeline: Pipeline) -> Said:
    root = pipeline.state.root
    assert isinstance(root, ObjectPath)
    probe = root / "proof" / uuid.uuid4().hex
    before = time.time()
    probe.write_bytes(b"")
    there = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    apart = max(before - 1 - there, there - time.time() - 1, 0.0)  # a store tells whole seconds
    if apart > CLOCK_SECONDS:
        return Said(
            "warning", f"the store's clock and this machine's are {apart:.0f} s apart", "synchronise them (NTP)"
        )
    return Said("ok", f"within {apart + 1:.0f} s of the store's")


def _sources(config: Config) -> Iterator[tuple[str, Callable[[], Said]]]:
    for number, source in enumerate(open_sources(config)):
        yield f"sources[{number}]", lambda source=source: _source(source)  # type: ignore[misc]


def _source(source: object) -> Said:
    from jobs.sources.base import Source

    opened: Source = source  # type: ignore[assignment]
    listing = opened.listing()
    size = sum(partition.size for partition in listing.partitions)
    said = f"{opened.source_id}: {len(listing.partitions):,} partitions, {size / 1e6:,.1f} MB"
    refused = [one for one in listing.rejected if not one.ignored]
    if refused or not listing.complete:
        reasons = ", ".join(sorted({one.reason for one in refused}))
        return Said(
            "warning", f"{said}; {len(refused):,} cannot be listed ({reasons})", "give this user the right to read"
        )
    return Said("ok", said)


def _index(pipeline: Pipeline) -> Said:
    config, index = pipeline.config, None
    if not pipeline.has_index():
        return Said("ok", f"{config.index_uri} is made by the first run")
    index = pipeline.index()
    versions, live = index.versions(), index.live()
    engine = index.capabilities().engine
    if live is None:
        return Said("ok", f"{engine} answers; {config.index.name} has no live version yet")
    said = f"{engine}: {config.index.name} is {live} with {index.count(live):,} rows, of {len(versions)} versions"
    ours = state_id(pipeline.state.root)
    if (owner := index.owner_of(live)) not in ("", ours):
        fix = "point state.uri or index.name elsewhere; `embedmill takeover` if that state is given up"
        return Said("failed", f"{said}; it belongs to state {owner}", fix)
    if (space := index.space_of(live)) != pipeline.space_id:
        return Said("warning", f"{said}; its space is {space}", "restore model.*, or run `embedmill reindex`")
    return Said("ok", said)


def _ray(pipeline: Pipeline) -> Said:
    from jobs.engines.agreement import check_ray
    from jobs.engines.ray import nodes

    pipeline.start_ray()
    spec = pipeline.encoder()
    check_ray(pipeline.state.root, None if spec.stored or spec.remote else spec.model)
    pool = actor_pool(pipeline.config.model, pipeline.config.model.actors, nodes())
    return Said(
        "ok", f"{len(nodes())} nodes, room for {pool.least} actors of {pool.cpus:g} CPUs and {pool.gpus:g} GPUs"
    )
