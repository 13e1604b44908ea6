"""Waits for a Kubernetes resource to end, in Airflow's triggerer, which must have this folder on its PYTHONPATH.

The resource is deleted here only where a person acted on the waiting task. A triggerer that stops or starts anew leaves
it alone: another one goes on waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from embedmill_airflow.launchers.manifests import KINDS, State, state


class CustomObjectTrigger(BaseTrigger):
    """Fires once, with ``{"state": …}``: succeeded, failed, lost or late.

    ``uid`` tells the resource from a later one of the same name. ``deadline`` is in seconds since the epoch. A resource
    is lost where it is gone, or where neither it nor the API has given an answer for ``patience_seconds``.
    """

    def __init__(  # noqa: PLR0913 (Airflow keeps a trigger as its keyword arguments)
        self,
        *,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        deadline: float | None,
        connection: str,
        in_cluster: bool,
        poll_seconds: float,
        patience_seconds: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.deadline = deadline
        self.connection = connection
        self.in_cluster = in_cluster
        self.poll_seconds = poll_seconds
        self.patience_seconds = patience_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What a triggerer makes the same trigger of."""
        names = (
            "kind",
            "namespace",
            "name",
            "uid",
            "deadline",
            "connection",
            "in_cluster",
            "poll_seconds",
            "patience_seconds",
        )
        return f"{__name__}.CustomObjectTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until the resource has ended."""
        hook, seen = self._hook(), time.monotonic()
        while True:
            try:
                found = state(await self._get(hook))
            except Exception as error:  # the network's, or the API's while its server starts anew
                found = State.unknown
                self.log.warning("%s %s: no answer (%s)", self.kind, self.name, type(error).__name__)
            if found is not State.unknown:
                seen = time.monotonic()
            elif time.monotonic() - seen > self.patience_seconds:
                found = State.lost
            if found not in (State.running, State.unknown):
                yield _event(found.value)
                return
            if self.deadline is not None and time.time() > self.deadline:
                yield _event("late")
                return
            await asyncio.sleep(self.poll_seconds)

    async def on_kill(self) -> None:
        """A person marked the waiting task, or cleared it: its resource goes with it, and no later one does."""
        from kubernetes_asyncio import client

        kind = KINDS[self.kind]
        async with self._hook().get_conn() as connection:
            try:
                await client.CustomObjectsApi(connection).delete_namespaced_custom_object(
                    kind.group,
                    kind.version,
                    self.namespace,
                    kind.plural,
                    self.name,
                    body={"preconditions": {"uid": self.uid}, "propagationPolicy": "Foreground"},
                )
            except client.ApiException as error:
                if error.status not in (404, 409):  # gone, or another one's
                    raise

    def _hook(self) -> Any:
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

        return AsyncKubernetesHook(conn_id=self.connection, in_cluster=self.in_cluster)

    async def _get(self, hook: Any) -> dict[str, Any] | None:
        from kubernetes_asyncio import client

        kind = KINDS[self.kind]
        async with hook.get_conn() as connection:
            try:
                found: dict[str, Any] = await client.CustomObjectsApi(connection).get_namespaced_custom_object(
                    kind.group, kind.version, self.namespace, kind.plural, self.name
                )
            except client.ApiException as error:
                if error.status == 404:
                    return None
                raise
        return found if found["metadata"]["uid"] == self.uid else None


def _event(state: str) -> TriggerEvent:
    return TriggerEvent({"state": state})  # type: ignore[no-untyped-call]
