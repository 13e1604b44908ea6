"""Vespa's protocol double: a process that speaks HTTP/1.1 and HTTP/2 on 127.0.0.1 as a Vespa container does.

No Vespa server can be run here, so this stands in for one; the real ``vespa`` command and pyvespa's clients prove it
in test_vespa_double.py. What it answers is ``vespa_double``'s; here are requests, and faults by a plan that a test makes.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import Request, urlopen

from tests.support.paths import ROOT
from tests.support.vespa_double import VERSION, Vespa
from tests.support.vespa_types import Refused
from tests.support.vespa_wire import Answer, Wire

STALL_SECONDS = 3.0
# What a container says of itself; the command line asks it whether /document/v1 is there.
_STATUS = {
    "application": {"vespa": {"version": VERSION}},
    "handlers": [
        {
            "id": "com.yahoo.document.restapi.resource.DocumentV1ApiHandler",
            "class": "com.yahoo.document.restapi.resource.DocumentV1ApiHandler",
            "serverBindings": ["http://*/document/v1/*"],
        }
    ],
}


class VespaServer:
    """The double in a process of its own, started with the package in a folder."""

    def __init__(self, package: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.vespa_server", str(package)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        self.uri = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def plan(self, *faults: str, slow: float = 0.0, token: str = "") -> None:
        """Fail the next requests for documents and searches so, "" for one that does not fail; clear the counts.

        A fault is a status ("429"), "stall" for no answer, "reset" for a connection that breaks before the work is
        done, "lost" for one that breaks after it, or "partial" for a search that saw half of the documents.

        ``slow`` is how long every answer takes, and ``token`` what every request must carry.
        """
        self._control("plan", {"faults": faults, "slow": slow, "token": token})

    def seen(self) -> dict[str, Any]:
        """Requests since the last plan: by status or fault, by protocol, and the most under way at once."""
        return dict(self._control("seen", {}))

    def deploy(self, package: Path, *, empty: bool = False) -> None:
        """Deploy another package, into an application with no documents if ``empty``."""
        self._control("deploy", {"package": str(package), "empty": empty})

    def documents(self, kind: str) -> dict[str, dict[str, Any]]:
        """What it holds of a type, by id, vectors left out."""
        return dict(self._control("documents", {"kind": kind}))

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=10)

    def _control(self, what: str, body: dict[str, Any]) -> Any:
        request = Request(f"{self.uri}/control/{what}", json.dumps(body).encode(), method="POST")
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)


class Container:
    """What is behind the wire, whichever protocol it came over."""

    def __init__(self, package: Path) -> None:
        self.vespa = Vespa(package)
        self.reset({"faults": [], "slow": 0.0, "token": ""})

    def reset(self, body: dict[str, Any]) -> None:
        """Begin a plan."""
        self.faults, self.slow, self.token = iter(body["faults"]), body["slow"], body["token"]
        self.counts: Counter[str] = Counter()
        self.busy = self.most = 0

    async def answer(self, protocol: str, method: str, target: str, headers: dict[str, str], content: bytes) -> Answer:
        """Carry out a request, or what the plan has for it."""
        url = urlsplit(target)
        params: dict[str, Any] = dict(parse_qsl(url.query, keep_blank_values=True))
        if headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        body = json.loads(content) if content else None
        if url.path.startswith("/control/"):
            return self._answered(200, self._control(url.path.split("/")[2], body), headers)
        if url.path in ("/ApplicationStatus", "/status.html", "/"):
            return self._answered(200, _STATUS, headers)
        fault = next(self.faults, "")
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.counts[protocol] += 1
        try:
            if self.slow:
                await asyncio.sleep(self.slow)
            if fault == "reset":
                self.counts["reset"] += 1
                return None
            if fault == "stall":
                self.counts["stall"] += 1
                await asyncio.sleep(STALL_SECONDS)
                return None
            if fault not in ("", "lost", "partial"):
                raise Refused(int(fault), f"Refused by the plan: {content[:200]!r}")
            if self.token and headers.get("authorization") != f"Bearer {self.token}":
                raise Refused(401, "Unauthorized")
            status, found = 200, self._work(method, url.path, params, body)
            if fault == "partial":
                found["root"]["coverage"] |= {"coverage": 50, "full": False, "degraded": {"timeout": True}}
        except Refused as refused:
            status, found = refused.status, self._refusal(url.path, refused)
        except Exception as error:
            status, found = 500, {"message": f"the double failed: {error!r}"}
        finally:
            self.busy -= 1
        self.counts["lost" if fault == "lost" else str(status)] += 1
        return None if fault == "lost" else self._answered(status, found, headers)

    def _work(self, method: str, path: str, params: dict[str, Any], body: Any) -> dict[str, Any]:
        if path.startswith("/document/v1/"):
            return self.vespa.document(method, path, params, body)
        if path.rstrip("/") == "/search":
            return self.vespa.search(params | (body or {}))
        raise Refused(404, f"Nothing at '{path}'")

    @staticmethod
    def _refusal(path: str, refused: Refused) -> dict[str, Any]:
        if path.startswith("/search"):
            error = {"code": refused.status, "summary": "Refused", "message": str(refused)}
            return {"root": {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": 0}, "errors": [error]}}
        parts = [unquote(part) for part in path.split("/")]
        whole = {"id": f"id:{parts[3]}:{parts[4]}::{'/'.join(parts[6:])}"} if len(parts) > 6 and parts[6] else {}
        return {"pathId": path} | whole | ({"message": str(refused)} if str(refused) else {})

    @staticmethod
    def _answered(status: int, found: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        more = {"x-vespa-ignored-fields": "true"} if isinstance(found, dict) and found.pop("ignored", False) else {}
        if headers.get("accept") == "application/cbor" and "root" in found:
            return status, {"content-type": "application/cbor"}, b"".join(cbor(found))
        content = json.dumps(found, ensure_ascii=False).encode()
        return status, {"content-type": "application/json; charset=UTF-8"} | more, content

    def _control(self, what: str, body: Any) -> Any:
        if what == "plan":
            self.reset(body)
        elif what == "seen":
            return dict(self.counts) | {"most": self.most}
        elif what == "documents":
            return self.vespa.types[body["kind"]].documents
        elif body["empty"]:
            self.vespa = Vespa(Path(body["package"]))
        else:
            self.vespa.deploy(Path(body["package"]))
        return {}


def cbor(value: Any) -> list[bytes]:
    """A value of JSON in CBOR, which pyvespa's client asks a query's answer in."""

    def head(major: int, size: int) -> bytes:
        for limit, extra, form in (
            (24, 0, ""),
            (2**8, 24, ">B"),
            (2**16, 25, ">H"),
            (2**32, 26, ">I"),
            (2**64, 27, ">Q"),
        ):
            if size < limit:
                return bytes([major << 5 | (extra or size)]) + (struct.pack(form, size) if form else b"")
        raise OverflowError(size)

    if isinstance(value, bool) or value is None:
        return [{False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]]
    if isinstance(value, int):
        return [head(0, value) if value >= 0 else head(1, -1 - value)]
    if isinstance(value, float):
        return [b"\xfb" + struct.pack(">d", value)]
    if isinstance(value, str):
        return [head(3, len(value.encode())), value.encode()]
    if isinstance(value, dict):
        return [head(5, len(value)), *(part for pair in value.items() for item in pair for part in cbor(item))]
    return [head(4, len(value)), *(part for item in value for part in cbor(item))]


async def _main(arguments: Sequence[str]) -> None:
    container = Container(Path(arguments[0]))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Wire(container.answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the one who started it closes it, or is gone


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
