"""A protocol double of the Kubernetes API, for custom objects, pods and their logs, on 127.0.0.1.

No cluster can be run here; the real clients, synchronous and not, talk to this. It creates (409 where the name is
taken, 422 where the schema refuses), reads, lists by label, and deletes as a server does: in the foreground an object
stays, marked, until what it owns is gone. ``operator`` plays the Spark Operator and KubeRay: it is asked at each read.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support import crd

TOKEN = "only-for-a-test"
_OBJECTS = re.compile(r"/apis/([^/]+)/([^/]+)/namespaces/([^/]+)/(sparkapplications|rayjobs)(?:/([^/]+))?")
_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)/log)?")
_KINDS = {"sparkapplications": "SparkApplication", "rayjobs": "RayJob"}


@dataclass
class Play:
    """What the operator made of a resource: its status, and its pod's log and end."""

    status: dict[str, Any]
    log: str = ""
    exit_code: int | None = None
    why: str = "Completed"


Operator = Callable[[dict[str, Any], int], Play | None]


@dataclass
class Kubernetes:
    """The double. ``requests`` are what was asked; ``down`` answers 503; ``linger`` is how long pods take to go."""

    operator: Operator = lambda resource, reads: None
    linger: float = 0.0
    down: bool = False
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    plays: dict[str, Play] = field(default_factory=dict)  # by uid
    reads: dict[str, int] = field(default_factory=dict)
    going: dict[str, float] = field(default_factory=dict)  # when the pods of a deleted one will be gone
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                found: Any
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, found = _status(401, "Unauthorized", "no token")
                else:
                    status, found = double.answer(self.command, self.path, body)
                data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here."""
        server = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "double",
                    "clusters": [{"name": "double", "cluster": server}],
                    "users": [{"name": "double", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
                }
            )
        )
        return path

    def count(self, start: str) -> int:
        """How many requests began so."""
        return sum(request.startswith(start) for request in self.requests)

    def answer(self, method: str, url: str, body: dict[str, Any]) -> tuple[int, Any]:
        """One request."""
        path, query = urlsplit(url).path, {name: one[0] for name, one in parse_qs(urlsplit(url).query).items()}
        with self._lock:
            self.requests.append(f"{method} {path}")
            self._collect()
            if self.down:
                return _status(503, "ServiceUnavailable", "the server is down")
            if found := _OBJECTS.fullmatch(path):
                group, version, namespace, plural, name = found.groups()
                return self._object(method, f"{group}/{version}", (namespace, plural, name or ""), query, body)
            if method == "GET" and (found := _PODS.fullmatch(path)):
                return self._log(found[2], query) if found[2] else self._list(found[1], query)
        return _status(404, "NotFound", f"no such path: {path}")

    def _object(
        self, method: str, api: str, key: tuple[str, str, str], query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, Any]:
        if method == "POST":
            return self._create(api, key, body)
        held = self.objects.get(key)
        if held is None or held["apiVersion"] != api:
            return _status(404, "NotFound", f'{key[1]} "{key[2]}" not found')
        if method == "GET":
            return 200, self._played(held)
        wanted = (body.get("preconditions") or {}).get("uid")
        if wanted not in (None, held["metadata"]["uid"]):
            return _status(409, "Conflict", "the UID in the precondition does not match")
        if (body.get("propagationPolicy") or query.get("propagationPolicy")) == "Foreground":
            held["metadata"].setdefault("deletionTimestamp", _now())
            self.going.setdefault(held["metadata"]["uid"], time.monotonic() + self.linger)
        else:
            del self.objects[key]
        self._collect()
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _create(self, api: str, key: tuple[str, str, str], body: dict[str, Any]) -> tuple[int, Any]:
        if (body.get("apiVersion"), body.get("kind")) != (api, _KINDS[key[1]]):
            return _status(400, "BadRequest", "the object is of another kind")
        if found := crd.errors(body):
            return _status(422, "Invalid", "; ".join(found))
        key = (key[0], key[1], body["metadata"]["name"])
        if key in self.objects:
            return _status(409, "AlreadyExists", f'{key[1]} "{key[2]}" already exists')
        own = {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        self.objects[key] = body | {"metadata": body["metadata"] | own}
        return 201, self.objects[key]

    def _played(self, held: dict[str, Any]) -> dict[str, Any]:
        uid = held["metadata"]["uid"]
        if "deletionTimestamp" not in held["metadata"]:
            self.reads[uid] = self.reads.get(uid, 0) + 1
            play = self.operator(held, self.reads[uid])
            if play is not None:
                self.plays[uid], held["status"] = play, play.status
                assert crd.errors(held) == [], "an operator writes no such status"
        return held

    def _collect(self) -> None:
        """Remove what waited for its pods, once they are gone."""
        for key, held in list(self.objects.items()):
            if time.monotonic() >= self.going.get(held["metadata"]["uid"], math.inf):
                del self.objects[key]

    def _list(self, namespace: str, query: dict[str, str]) -> tuple[int, Any]:
        wanted = dict(one.split("=") for one in query.get("labelSelector", "").split(",") if one)
        pods = [pod for pod in self._pods(namespace) if wanted.items() <= pod["metadata"]["labels"].items()]
        return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}

    def _pods(self, namespace: str) -> list[dict[str, Any]]:
        found = []
        for (where, plural, name), held in self.objects.items():
            play = self.plays.get(held["metadata"]["uid"])
            if where != namespace or play is None or play.exit_code is None:
                continue
            spark = plural == "sparkapplications"
            labels = {"sparkoperator.k8s.io/app-name": name, "spark-role": "driver"} if spark else {"job-name": name}
            container = "spark-kubernetes-driver" if spark else "ray-job-submitter"
            ended = {"exitCode": play.exit_code, "reason": play.why}
            status = {
                "name": container,
                "ready": False,
                "restartCount": 0,
                "image": "i",
                "imageID": "i",
                "state": {"terminated": ended},
            }
            meta = {
                "name": f"{name}-driver",
                "labels": labels,
                "creationTimestamp": held["metadata"]["creationTimestamp"],
            }
            spec = {"containers": [{"name": container}]}
            found.append({"metadata": meta, "spec": spec, "status": {"containerStatuses": [status]}})
        return found

    def _log(self, pod: str, query: dict[str, str]) -> tuple[int, Any]:
        for (_, _, name), held in self.objects.items():
            if pod == f"{name}-driver":
                if query.get("container") not in ("spark-kubernetes-driver", "ray-job-submitter"):
                    return _status(400, "BadRequest", f"container {query.get('container')} is not valid for pod {pod}")
                return 200, self.plays[held["metadata"]["uid"]].log
        return _status(404, "NotFound", f'pods "{pod}" not found')


def mark(resource: dict[str, Any]) -> str:
    """The outcome's mark as the job's process sees it: a variable of its container."""
    spec = resource["spec"]
    if resource["kind"] == "SparkApplication":
        variables = spec["driver"]["env"]
    else:
        variables = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    return str({one["name"]: one["value"] for one in variables}["EMBEDMILL_OUTCOME_MARK"])


def ending(code: int | None = 0, body: Any = None, *, after: int = 2, killed: int = 0) -> Operator:
    """An operator whose jobs run for some reads, then end with a code and an object, or are killed with neither."""

    def operator(resource: dict[str, Any], reads: int) -> Play:
        spark = resource["kind"] == "SparkApplication"
        if reads <= after:
            running = {"applicationState": {"state": "RUNNING"}, "driverInfo": {}}
            return Play(running if spark else {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"})
        good = not (killed or code)
        if spark:
            state = {"state": "COMPLETED"} if good else {"state": "FAILED", "errorMessage": "driver container failed"}
            status: dict[str, Any] = {"applicationState": state, "driverInfo": {}}
        else:
            status = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
            if not good:
                status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
        said = json.dumps({"code": code, "body": {"done": 1} if body is None else body})
        log = "on the way\n" + (f"\n{mark(resource)} {said}\n" if code is not None else "")
        return Play(status, log, killed or code or 0, "OOMKilled" if killed else "Completed" if good else "Error")

    return operator


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
