"""Starts and stops Ray: sized, quiet, with one line for the user when it cannot start."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from embedding.errors import ResourceError
from jobs import termination
from jobs.engines.compat import minimal_ray
from jobs.state.path_alias import plain

if TYPE_CHECKING:
    from jobs.config import Config


def start_ray(config: Config, scratch: Path) -> bool:
    """Connect to Ray, or start one for this process, which spills what is over its memory below ``scratch``.

    Returns False where this process has one already. Raises ResourceError where it does not start.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    from jobs.state.work_folder import open_scratch

    _quiet_data()
    if ray.is_initialized():
        return False
    open_scratch(scratch, config.state.lease_seconds)
    scratch = plain(scratch)
    started: Future[None] = Future()

    def start() -> None:
        try:
            _init_ray(config, scratch)
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
        threading.Event().wait()

    # In a thread that does not end: the kernel ends the processes of a local Ray with the thread that started them.
    threading.Thread(target=start, name="ray", daemon=True).start()
    started.result()
    return True


def ray_runs() -> bool:
    """Whether this process has a Ray, its own or one that it is connected to."""
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def nodes() -> list[dict[str, float]]:
    """What each node of the Ray that runs has, by Ray's names ("CPU", "GPU")."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def gpu_node() -> str | None:
    """Ray's id of a node that has a GPU; None where none has."""
    import ray

    return next((node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")), None)


def end_ray() -> None:
    """End the Ray that this process started, if any; a Ray that it only connected to goes on.

    Ray would end with the interpreter too, and first wait for messages that no process reads any more.
    """
    if "ray" in sys.modules:
        import ray

        ray.shutdown()


def _init_ray(config: Config, scratch: Path) -> None:
    import ray

    local = config.ray.address == "local"
    port = config.telemetry.ray_port if local else 0  # a node of a cluster has its own
    if not local and config.ray.address != "auto":
        _check_node(config.ray.address)
    for last in (not local, True):  # on a busy machine Ray's own first process sometimes misses Ray's deadline
        try:
            with nullcontext() if port or not local else minimal_ray(), termination.kept(signal.SIGTERM):
                ray.init(
                    address=config.ray.address,
                    include_dashboard=False if local else None,
                    object_store_memory=config.ray.object_store_mb * 1_000_000 if local else None,
                    object_spilling_directory=str(scratch) if local else None,
                    _metrics_export_port=port or None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            return
        except Exception as error:
            if last:
                what = "a Ray of our own did not start" if local else f"Ray at {config.ray.address!r} did not answer"
                cause = f"{type(error).__name__}: {str(error)[:200]}"
                raise ResourceError(f"ray.address: {what} ({cause})") from None
            ray.shutdown()


def _check_node(address: str) -> None:
    """Raise ResourceError where no node of Ray runs on this machine: Ray ends the whole process without a word then."""
    if not any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"])):
        raise ResourceError(
            f"ray.address: no node of Ray runs on {socket.gethostname()}, and a command joins the cluster at {address} "
            f"from a node of it alone; run `ray start --address={address} --num-cpus=0` here first, or have Airflow "
            "send the command there (EMBEDMILL_LAUNCHER=ray-jobs)"
        )


def _quiet_data() -> None:
    from ray.data import DataContext

    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)
    for handler in [h for h in logger.handlers if isinstance(h, logging.StreamHandler)]:
        logger.removeHandler(handler)  # to standard error; what fails is raised, and told there in one line of ours
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
