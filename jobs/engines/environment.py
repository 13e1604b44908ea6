"""Environment variables that keep the engines quiet and offline."""

from __future__ import annotations

import os

# Read by the engines' native parts when they start. None of their chatter helps a person at a terminal.
ENVIRONMENT = {
    "GLOG_minloglevel": "3",
    # Engines are started by fork and exec, beside gRPC's threads (Milvus); its handlers for a fork have nothing to do
    # in a child that execs at once, and can hang there.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "GRPC_VERBOSITY": "NONE",
    "HF_HUB_OFFLINE": "1",
    # glibc's malloc raises the size from which memory is the system's again when it is freed, up to 32 MB. What then
    # stays with the heap of each thread made an encode actor grow by a tenth within its first shards.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray ends workers that were idle for a second where there are more than cores. The next shard then waits for a new
    # one, and its start takes two core-seconds from the encoder.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    "RAY_num_workers_soft_limit": "4",
}
# What Ray's nodes need of it on a cluster, whoever starts them: the image and the cookbook set it.
OF_NODES = ("MALLOC_MMAP_THRESHOLD_", "RAY_idle_worker_killing_time_threshold_ms")


def quiet_engines() -> None:
    """Set the engines' environment: silent, offline, without usage reports. Call before they are imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
