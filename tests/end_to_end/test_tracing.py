"""OpenTelemetry: a run is one trace, workers and services in it, no text in it, and nothing of it is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from jobs.state.lease import holder
from jobs.telemetry import tracing
from tests.support.otlp import Received, Receiver
from tests.support.paths import ROOT
from tests.support.prometheus import until
from tests.support.services import DIM, serving
from tests.support.workspace import TEXTS, Workspace, message

pytestmark = pytest.mark.usefixtures("encoder_here")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening
    assert tracing._provider is None, "what a command sends is sent when it ends"


def speak(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, protocol: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    address = receiver.grpc if protocol == "grpc" else receiver.http
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)


def tree(spans: list[Received]) -> Counter[tuple[str, str]]:
    """How many spans of a name are below one of another."""
    names = {one.span: one.name for one in spans}
    return Counter((names.get(one.parent, ""), one.name) for one in spans)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_is_one_trace_and_its_metrics_come_with_it(
    workspace: Workspace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, protocol: str, encoder_on_ray: None
) -> None:
    speak(monkeypatch, receiver, protocol)
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-b7ad6b7169203331-01")
    done = workspace.run()
    assert done.code == 0 and "took no" not in done.err, done
    assert len({one.trace for one in receiver.spans}) == 1
    found = tree(receiver.spans)
    assert found["", "embedmill run"] == 1
    for step in ("extract", "plan", "embed"):
        assert found["embedmill run", step] == 1
    [root] = [one for one in receiver.spans if not one.parent]
    assert root.links == [TRACE] and root.resource["service.name"] == "embedmill"
    assert root.attributes["embedmill.run_id"] == done.body["run_id"] and root.attributes["embedmill.status"] == "ok"
    [shard] = [one for one in receiver.spans if one.name.startswith("embeddings ")]
    assert shard.attributes["gen_ai.operation.name"] == "embeddings" and shard.attributes["embedmill.texts"] == 8
    assert shard.attributes["gen_ai.usage.input_tokens"] == done.body["tokens"]["embedded"]
    [upsert] = [one for one in receiver.spans if one.attributes.get("db.operation.name") == "upsert"]
    assert (upsert.kind, upsert.attributes["db.system.name"], upsert.attributes["db.operation.batch.size"]) == (
        "client",
        "milvus",
        8,
    )
    assert all(one.began <= one.ended for one in receiver.spans)
    [(labels, point)] = [
        one for one in receiver.metrics["embedmill_last_run_chunks"] if one[0]["outcome"] == "embedded"
    ]
    assert point.as_double == 8 and labels["command"] == "run"
    totals = {labels["outcome"]: point.as_double for labels, point in receiver.metrics["embedmill_chunks_total"]}
    assert totals["embedded"] == 8
    [(about, duration)] = receiver.metrics["gen_ai.client.operation.duration"]
    assert about["gen_ai.operation.name"] == "embeddings" and duration.count == 1 and len(duration.explicit_bounds) > 10
    assert receiver.metrics["gen_ai.client.token.usage"][0][1].sum == done.body["tokens"]["embedded"]


def test_two_workers_of_ray_and_each_request_to_a_service_are_in_the_trace(
    workspace: Workspace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, encoder_on_ray: None
) -> None:
    speak(monkeypatch, receiver, "http/protobuf")
    workspace.day("general", [message(n, f"report {n} of {n % 7} lines") for n in range(400)])
    with serving(["overloaded"]) as server:
        text = workspace.config.read_text().replace(
            '[model]\nbackend = "hash"\n',
            f'[model]\nbackend = "http"\nactors = 2\nshard_tokens = 150\n[model.remote]\nmodel = "a-model"\n'
            f'dim = {DIM}\nurl = "{server.url}"\nrequest_texts = 5\n',
        )
        workspace.config.write_text(text)
        done = workspace.run()
    assert done.code == 0, done
    shards = [one for one in receiver.spans if one.attributes.get("embedmill.shard")]
    assert {one.attributes["process.pid"] for one in shards} - {os.getpid()} and len(shards) > 2
    assert len({one.attributes["process.pid"] for one in shards}) == 2
    requests = [one for one in receiver.spans if one.name == "embeddings a-model" and one.kind == "client"]
    assert len(requests) >= done.body["cost"]["requests"] and {one.parent for one in requests} <= {
        one.span for one in shards
    }
    assert {one.error for one in requests} == {"", "TryAgain"}, "one was refused, and sent again"
    assert sum(one.attributes["gen_ai.usage.input_tokens"] for one in shards) == done.body["tokens"]["embedded"]


def test_no_text_and_no_name_leaves_by_telemetry_whatever_fails(
    workspace: Workspace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, receiver, "http/protobuf")
    monkeypatch.setenv("EMBEDMILL_DEBUG", "")
    workspace.day("general", [message(0, "canary4711 in a text"), message(1, TEXTS[1])])
    (workspace.files / "canary4712.pdf").write_bytes(b"%PDF-1.7 canary4713")
    assert workspace.run().code == 3

    def fail(*_: object) -> None:
        raise ValueError("canary4714 in an exception")

    with monkeypatch.context() as broken:
        broken.setattr("jobs.commands.run.plan_scope", fail)
        assert workspace.run().code == 1
    [failed] = [one for one in receiver.spans if not one.parent and one.error]
    assert failed.error == "ValueError" == failed.attributes["error.type"]
    assert receiver.raw and not [raw for raw in receiver.raw if b"canary" in raw or b"Ada" in raw]


def test_an_endpoint_that_is_away_costs_seconds_and_no_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 1.0)
    done = workspace.run()
    assert done.code == 0 and "OTEL_EXPORTER_OTLP_ENDPOINT: it took no traces" in done.err, done
    assert tracing._provider is None and 1.0 <= tracing._waited < 2.0, "traces and metrics share what is waited"


def test_a_run_that_is_asked_to_end_tells_of_it(
    workspace: Workspace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, receiver, "http/protobuf")
    words = [sys.executable, "-m", "jobs.cli", "run", "--config", str(workspace.config)]
    run = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    until(lambda: holder(workspace.root / "state"), "the run holds the lease")
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, said
    [root] = [one for one in receiver.spans if not one.parent]
    assert (root.name, root.error) == ("embedmill run", "Stopped")


def test_without_the_variables_nothing_of_opentelemetry_is_loaded(workspace: Workspace) -> None:
    script = (
        "import sys\nfrom tests.support.command_line import invoke\n"
        f"assert invoke(['run', '--config', {str(workspace.config)!r}]).exit_code == 0\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    assert done.returncode == 0 and done.stdout.strip().splitlines()[-1] == "[]", done


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("OTEL_BSP_SCHEDULE_DELAY", "0", "ValueError; look at the OTEL_* variables"), ("", "", "embedmill[otel]")],
)
def test_a_wrong_setting_or_a_missing_library_fails_no_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    if name:
        monkeypatch.setenv(name, value)
    else:
        monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    done = workspace.run()
    assert done.code == 0 and f"OpenTelemetry: no traces were made ({said}" in done.err.replace(
        'run `pip install "', ""
    ), done
