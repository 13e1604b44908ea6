"""Bedrock's batch inference on this machine: its API over HTTP, and jobs that read and write a real object store.

A job goes through its states as it is looked at. Paths, members and the rules on names, roles, tokens and the least
number of records are those of botocore's model of the service and of AWS's pages.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.object_store import Store
from tests.support.services import vector_of

_ARN = "arn:aws:bedrock:eu-west-1:123456789012:model-invocation-job/"
_LEAST = 100
_NAME = re.compile(r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+\-.]){0,63}")
_TOKEN = re.compile(r"[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}")
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
_MEMBERS = {
    *("jobName", "roleArn", "clientRequestToken", "modelId", "inputDataConfig", "outputDataConfig"),
    *("timeoutDurationInHours", "vpcConfig", "tags", "modelInvocationType"),
}
STATES = ("Submitted", "Validating", "Scheduled", "InProgress")


@dataclass
class Job:
    """A job; ``looks`` left before it is done."""

    asked: dict[str, Any]
    arn: str
    status: str = "Submitted"
    looks: int = len(STATES)

    @property
    def ended(self) -> bool:
        return self.status not in (*STATES, "Stopping")

    def told(self) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        names = ("jobName", "modelId", "clientRequestToken", "roleArn", "inputDataConfig", "outputDataConfig")
        return {"jobArn": self.arn, "status": self.status, "submitTime": now, **{n: self.asked[n] for n in names}}


@dataclass
class Bedrock:
    """The service. Jobs are ``listed``, or not yet, and end in the state ``ends`` after so many ``looks`` at them.

    ``of_record`` spoils the result of a text: "error", "missing", "narrow", "other" (it is of another text), or not ("").
    ``seen`` is called with each request, before it is done and after.
    """

    store: Store
    of_record: Callable[[str], str] = lambda text: ""
    ends: str = "Completed"
    looks: int = len(STATES)
    listed: bool = True
    seen: Callable[[str, bool], None] = lambda what, done: None
    jobs: list[Job] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    online: list[str] = field(default_factory=list)  # texts of InvokeModel
    lock: threading.RLock = field(default_factory=threading.RLock)
    url: str = ""

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        if not asked.keys() <= _MEMBERS or not _NAME.fullmatch(asked["jobName"]) or len(asked["jobName"]) > 63:
            return 400, "ValidationException"
        if not _ROLE.fullmatch(asked["roleArn"]) or not _TOKEN.fullmatch(asked["clientRequestToken"]):
            return 400, "ValidationException"
        if not 24 <= asked.get("timeoutDurationInHours", 24) <= 168:
            return 400, "ValidationException"
        for job in self.jobs:
            if job.asked["clientRequestToken"] == asked["clientRequestToken"]:
                return 200, {"jobArn": job.arn}
            if job.asked["jobName"] == asked["jobName"]:
                return 400, "ConflictException"
        self.jobs.append(Job(asked, f"{_ARN}{len(self.jobs):012}", looks=self.looks))
        return 200, {"jobArn": self.jobs[-1].arn}

    def look(self, identifier: str) -> tuple[int, Any]:
        job = next((one for one in self.jobs if identifier in (one.arn, one.arn.rpartition("/")[2])), None)
        if job is None:
            return 404, "ResourceNotFoundException"
        if not job.ended:
            job.looks -= 1
            job.status = STATES[-1] if job.looks > len(STATES) else STATES[-max(1, job.looks)]
            if job.looks <= 0:
                self._work(job)
        return 200, job.told()

    def _work(self, job: Job) -> None:
        bucket, _, key = job.asked["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].removeprefix("s3://").partition("/")
        client = self.store.client()
        records = [json.loads(line) for line in client.get_object(Bucket=bucket, Key=key)["Body"].read().splitlines()]
        job.status = self.ends if len(records) >= _LEAST else "Failed"
        if job.status == "Failed":
            return
        lines = []
        for number, record in enumerate(reversed(records)):  # in any order
            text = record["modelInput"]["inputText"]
            fault = self.of_record(text)
            if fault == "missing" or (job.status != "Completed" and number % 2):
                continue
            result = {
                "embedding": vector_of(text)[: -1 if fault == "narrow" else None],
                "inputTextTokenCount": len(text.split()),
            }
            told = {"error": {"errorCode": 400, "errorMessage": "bad"}} if fault == "error" else {"modelOutput": result}
            read = {"modelInput": {"inputText": "another"}} if fault == "other" else {}
            lines.append(json.dumps({**record, **read, **told}))
        out = job.asked["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].removeprefix(f"s3://{bucket}/")
        folder = f"{out.rstrip('/')}/{job.arn.rpartition('/')[2]}/"
        name = key.rpartition("/")[2]
        client.put_object(Bucket=bucket, Key=f"{folder}{name}.out", Body="\n".join(lines).encode())
        summary = {"totalRecordCount": len(records), "processedRecordCount": len(lines)}
        client.put_object(Bucket=bucket, Key=f"{folder}manifest.json.out", Body=json.dumps(summary).encode())

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        at = urlsplit(path)
        parts = [unquote(part) for part in at.path.strip("/").split("/", 1)]
        if parts[0] == "model":  # of bedrock-runtime
            text = json.loads(body)["inputText"]
            self.online.append(text)
            return 200, {"embedding": vector_of(text), "inputTextTokenCount": len(text.split())}
        self.asked[f"{method} {parts[0]}"] += 1
        if method == "POST" and parts == ["model-invocation-job"]:
            return self.create(json.loads(body))
        if method == "POST" and parts[1].endswith("/stop"):
            for job in self.jobs:
                if job.arn == parts[1].removesuffix("/stop") and not job.ended:
                    job.status = "Stopped"
            return 200, {}
        if parts[0] == "model-invocation-job":
            return self.look(parts[1])
        query = parse_qs(at.query)
        start = int(query.get("nextToken", ["0"])[0])
        named = [
            job.told()
            for job in self.jobs
            if self.listed and query.get("nameContains", [""])[0] in job.asked["jobName"]
        ]
        more = {"nextToken": str(start + 2)} if len(named) > start + 2 else {}
        return 200, {"invocationJobSummaries": named[start : start + 2], **more}


@contextmanager
def bedrock(store: Store, **more: Any) -> Iterator[Bedrock]:
    """The service for a block."""
    service = Bedrock(store, **more)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            what = f"{self.command} {self.path}"
            service.seen(what, False)
            with service.lock:
                code, told = service.answer(self.command, self.path, body)
            service.seen(what, True)
            content = json.dumps({"message": "said no"} if isinstance(told, str) else told).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if isinstance(told, str):
                self.send_header("x-amzn-errortype", told)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
