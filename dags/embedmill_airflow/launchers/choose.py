"""Which launcher a deployment uses, read from Airflow's environment and connections."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

# The passwords of these connections, where there are such.
SECRETS = {
    "embedmill_index": "EMBEDMILL__INDEX__TOKEN",
    "embedmill_state": "EMBEDMILL__STATE__HASH_KEY",
    "embedmill_model": "EMBEDMILL_HTTP_API_KEY",
}


def launcher() -> Any:
    """The launcher that EMBEDMILL_LAUNCHER names; its file is imported here and not when a DAG is parsed."""
    name = os.environ.get("EMBEDMILL_LAUNCHER", "local")
    if name not in LAUNCHERS:
        raise AirflowFailException(f"EMBEDMILL_LAUNCHER: {name!r} is no launcher; use {', '.join(LAUNCHERS)}")
    try:
        return LAUNCHERS[name](os.environ)
    except ValueError as error:
        raise AirflowFailException(str(error)) from None


def _local(environment: Mapping[str, str]) -> Any:
    from embedmill_airflow.launchers.local import Local

    return Local(environment.get("EMBEDMILL_COMMAND", ""), secrets())


def _ray_jobs(environment: Mapping[str, str]) -> Any:
    from embedmill_airflow.launchers.ray_jobs import RayJobs

    address = environment.get("EMBEDMILL_RAY_JOBS_ADDRESS", "")
    if "://" not in address:
        raise ValueError("EMBEDMILL_RAY_JOBS_ADDRESS: give the address of the cluster's dashboard, http(s)://host:8265")
    passed = environment.get("EMBEDMILL_RAY_JOBS_SECRETS", "cluster")
    if passed not in ("cluster", "runtime-env"):
        raise ValueError(f"EMBEDMILL_RAY_JOBS_SECRETS: {passed!r} is no place for secrets; use cluster or runtime-env")
    command = environment.get("EMBEDMILL_RAY_JOBS_COMMAND", "")
    return RayJobs(address, command=command, secrets=secrets() if passed == "runtime-env" else {})


def _kubernetes(environment: Mapping[str, str]) -> Any:
    from embedmill_airflow.launchers.kubernetes import Kubernetes
    from embedmill_airflow.launchers.manifests import Settings

    return Kubernetes(Settings.read(environment))


LAUNCHERS = {"local": _local, "ray-jobs": _ray_jobs, "kubernetes": _kubernetes}


def secrets() -> dict[str, str]:
    """The secrets that Airflow keeps, under embedmill's variables."""
    found = {}
    for connection, name in SECRETS.items():
        try:
            secret = BaseHook.get_connection(connection).password
        except AirflowNotFoundException:
            continue
        if secret:
            found[name] = secret
    return found
