"""Asks every host of a cluster what runs there and whether it sees the state, before any work is given to it.

A host with another release decides otherwise; one that does not see the state writes elsewhere. Either is said with
the host's name.
"""

from __future__ import annotations

import hashlib
import platform
import socket
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import EmbedmillError, ResourceError
from embedding.models.packaged import tokenizer_file
from embedding.models.space import describe_space
from embedding.models.tokenizer_json import tokenizer_digest
from jobs.engines.tested import installed
from jobs.state.state_folder import MARKER
from jobs.state.storage import StatePath

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Whose versions must be the same: what decides, what is sent between hosts, and what writes tables.
_PACKAGES = ("embedmill", "pyarrow", "numpy", "deltalake", "tokenizers")
_SECONDS = 30.0  # that a node of Ray may take to answer
_EXECUTOR_SECONDS = 120.0  # the same of Spark, which may have to start executors
_TASKS = 2  # for each core of Spark: with as many each executor gets one


def look(root: StatePath, model: Path | None = None, *, encodes: bool = False) -> dict[str, str]:
    """What runs here, by name, with ``host``; ``state`` is a digest of the state's marker, or says why not.

    Of a ``model``'s folder it is what cuts texts, and where texts are encoded, what decides vectors.
    """
    found = {"host": socket.gethostname(), "python": ".".join(platform.python_version_tuple()[:2])}
    found |= {name: installed(name) for name in _PACKAGES}
    try:
        found["state"] = hashlib.blake2b((root / MARKER).read_bytes(), digest_size=8).hexdigest()
    except FileNotFoundError:
        found["state"] = "not there"
    except (OSError, EmbedmillError) as error:
        found["state"] = f"out of reach ({error})"
    if model is not None:
        found["model"] = _model(model, encodes)
    return found


def _look_to_encode(root: StatePath, model: Path | None) -> dict[str, str]:
    return look(root, model, encodes=True)


@lru_cache(maxsize=4)
def _model(folder: Path, encodes: bool) -> str:
    try:
        if encodes:
            return describe_space(folder, chunker="", normaliser="").model_id
        return tokenizer_digest(tokenizer_file(folder))
    except (OSError, ValueError, KeyError, EmbedmillError):
        return "not there"


def check(setting: str, ours: Mapping[str, str], root: StatePath, hosts: Iterable[Mapping[str, str]]) -> None:
    """Raise ResourceError where a host runs something else than this process, or sees another state or model."""
    for theirs in hosts:
        if theirs["state"] != ours["state"]:
            seen = theirs["state"] if " " in theirs["state"] else "another one"
            raise ResourceError(
                f"{setting}: host {theirs['host']} does not see the state at {root}: on that host it is {seen}; every "
                "driver and worker must see one and the same state.uri, with credentials of its own for a store"
            )
        if theirs.get("model") != ours.get("model"):
            seen = "no model" if theirs.get("model") == "not there" else "another model"
            raise ResourceError(
                f"{setting}: host {theirs['host']} has {seen} where model.name leads; install it there, or put it "
                "in an object store, from which each host copies it (model.name = s3://bucket/prefix)"
            )
        other = [name for name in ours if name not in ("host", "state") and theirs.get(name) != ours[name]]
        if other:
            said = ", ".join(f"{name} {theirs.get(name, 'none')}, here {ours[name]}" for name in other)
            raise ResourceError(f"{setting}: host {theirs['host']} has {said}; install the same versions everywhere")


def check_spark(spark: SparkSession, root: StatePath, model: Path | None = None) -> None:
    """``check`` the hosts of Spark's executors; with a ``model`` that each is to have in this folder."""
    context = spark.sparkContext
    tasks, late = max(2, context.defaultParallelism * _TASKS), threading.Event()

    def give_up() -> None:
        late.set()
        context.cancelAllJobs()

    timer = threading.Timer(_EXECUTOR_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        answers = context.parallelize(range(tasks), tasks).map(lambda _: look(root, model)).collect()
    except Exception:
        if not late.is_set():
            raise
        raise ResourceError(
            f"spark.master: no executor answered within {_EXECUTOR_SECONDS:.0f} s; look whether {context.master} has "
            "workers with as many free cores and as much memory as spark.properties ask for"
        ) from None
    finally:
        timer.cancel()
    check("spark.master", look(root, model), root, {answer["host"]: answer for answer in answers}.values())


def check_ray(root: StatePath, model: Path | None = None) -> None:
    """``check`` the nodes of the Ray that runs, as ``check_spark`` does.

    Raises ResourceError for one that does not answer, too.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {
        node["NodeManagerHostname"]: ray.remote(num_cpus=0)(_look_to_encode)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(root, model)
        for node in ray.nodes()
        if node["Alive"]
    }
    answers = []
    for host, answer in asked.items():
        try:
            answers.append(ray.get(answer, timeout=_SECONDS))
        except GetTimeoutError:
            raise ResourceError(f"ray.address: host {host} did not answer within {_SECONDS:.0f} s") from None
        except RayError as error:
            cause = type(getattr(error, "cause", None) or error).__name__
            raise ResourceError(
                f"ray.address: host {host} cannot run embedmill ({cause}); install the same release of it there"
            ) from None
    check("ray.address", look(root, model, encodes=True), root, answers)
