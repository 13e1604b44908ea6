"""A job as a SparkApplication or a RayJob on Kubernetes, through Airflow's provider, while the task is deferred.

The resource's name is the job's, so a later try finds what an earlier one began: it attaches to one that runs, takes
the outcome of one that ended well but unread, and deletes any other and begins again. What ended well is deleted once
its outcome was taken, so that clearing the task runs it again; what failed stays for its time to live.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from embedmill_airflow.launchers import Job, JobLost, Outcome
from embedmill_airflow.launchers.manifests import ANNOTATION, KINDS, Settings, State, kind, reason, render, state
from embedmill_airflow.launchers.outcome import Shown, new_mark, outcome
from embedmill_airflow.launchers.shapes import shapes


class Kubernetes:
    """Begins, reads and stops resources. ``patience_seconds`` is for what does not answer, or does not go away.

    Raises ValueError where the settings name shapes that are not there.
    """

    def __init__(self, settings: Settings, *, patience_seconds: float = 300.0, poll_seconds: float = 10.0) -> None:
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

        self._settings = settings
        self._shapes = shapes(settings)
        self._hook = KubernetesHook(conn_id=settings.connection)
        self._patience = patience_seconds
        self._poll = poll_seconds

    def begin(self, job: Job, *, log: Any, seconds: float | None) -> Any:
        """Create the job's resource, or attach to it; returns the trigger that waits for its end, so many seconds."""
        from embedmill_airflow.launchers.trigger import CustomObjectTrigger

        found = self._create(job, log)
        deadline = None if seconds is None else time.time() + seconds
        return CustomObjectTrigger(
            kind=found["kind"],
            namespace=self._settings.namespace,
            name=job.name,
            uid=found["metadata"]["uid"],
            deadline=deadline,
            connection=self._settings.connection,
            in_cluster=self._hook.is_in_cluster,
            poll_seconds=self._poll,
            patience_seconds=self._patience,
        )

    def end(self, job: Job, event: Mapping[str, Any], *, log: Any) -> Outcome:
        """The outcome of a resource whose trigger fired. Raises JobLost where it ended without a word.

        One that has not ended is deleted.
        """
        found = self._get(job)
        if found is None or event["state"] not in (State.succeeded, State.failed):
            self.stop(job)
            raise JobLost(f"{kind(job)} {job.name}: {event['state']}; {reason(found)}")
        mark = found["metadata"].get("annotations", {}).get(ANNOTATION, "")
        said, dead = self._read(job, mark, log)
        succeeded = event["state"] == State.succeeded
        if succeeded:
            self.stop(job)
        if said is None or succeeded != (said.code == 0):
            raise JobLost(f"{kind(job)} {job.name} ended without its report ({event['state']}{dead}); {reason(found)}")
        return said

    def stop(self, job: Job) -> None:
        """Delete the resource with its pods, where it is there."""
        from kubernetes.client import ApiException

        sort = KINDS[kind(job)]
        try:
            self._hook.delete_custom_object(
                sort.group,
                sort.version,
                sort.plural,
                job.name,
                self._settings.namespace,
                propagation_policy="Foreground",  # the name stays taken until the pods are gone: no two tries at once
            )
        except ApiException as error:
            if error.status != 404:
                raise

    def _create(self, job: Job, log: Any) -> dict[str, Any]:
        from kubernetes.client import ApiException

        sort, until = KINDS[kind(job)], time.monotonic() + self._patience
        while True:
            found = self._get(job)
            if found is None:
                body = render(job, self._shapes[kind(job)], self._settings.namespace, new_mark())
                try:
                    made: dict[str, Any] = self._hook.create_custom_object(
                        sort.group, sort.version, sort.plural, body, self._settings.namespace
                    )
                except ApiException as error:
                    if error.status != 409:
                        raise
                    continue  # another try was faster
                log.info("%s %s in %s", kind(job), job.name, self._settings.namespace)
                return made
            if state(found) in (State.running, State.succeeded):
                log.info("attached to %s %s, which is %s", kind(job), job.name, state(found))
                return found
            if state(found) is not State.lost:  # that is one which is being deleted
                log.info("%s %s of an earlier try is %s: deleted", kind(job), job.name, state(found))
                self.stop(job)
            if time.monotonic() > until:
                raise JobLost(f"{kind(job)} {job.name} of an earlier try does not go away")
            time.sleep(min(1.0, self._poll))

    def _get(self, job: Job) -> dict[str, Any] | None:
        from kubernetes.client import ApiException

        sort = KINDS[kind(job)]
        try:
            found: dict[str, Any] = self._hook.get_custom_object(
                sort.group, sort.version, sort.plural, job.name, self._settings.namespace
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def _read(self, job: Job, mark: str, log: Any) -> tuple[Outcome | None, str]:
        """What the newest pod that said it says, with its log shown; else how the newest ended."""
        from kubernetes.client import ApiException

        sort, core = KINDS[kind(job)], self._hook.core_v1_client
        listed = core.list_namespaced_pod(self._settings.namespace, label_selector=sort.pods.format(name=job.name))
        pods = sorted(listed.items, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)
        dead = ", no pod is left" if not pods else ""
        for pod in pods:
            try:
                answer = core.read_namespaced_pod_log(
                    pod.metadata.name, self._settings.namespace, container=sort.container, _preload_content=False
                )
            except ApiException as error:  # its container never began, or its node is gone
                log.warning("no log of pod %s (%s)", pod.metadata.name, error.status)
                continue
            text = answer.data.decode("utf-8", "backslashreplace")
            said = outcome(text, mark)
            if said is not None or pod is pods[0]:
                shown = Shown(log, mark)
                shown.add(text)
                shown.end()
            if said is not None:
                return said, ""
        for status in (pods[0].status.container_statuses or []) if pods else []:
            ended = status.state.terminated
            if status.name == sort.container and ended is not None:
                dead = f", {ended.reason}, exit {ended.exit_code}"
        return None, dead
