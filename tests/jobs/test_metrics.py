"""What Prometheus is told at the end of a command, by a textfile and by a Pushgateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.metrics.collect import Sample, collect
from jobs.metrics.export import registry_of
from jobs.metrics.series import BY_NAME, PREFIX, SERIES
from jobs.run_session import open_session
from jobs.scope import Scope
from tests.support.in_process import Death, Killed, open_pipeline
from tests.support.workspace import TEAM, TEXTS, Workspace, message, named_in

pytestmark = pytest.mark.usefixtures("encoder_here")
Told = dict[tuple[str, ...], float]  # by the series' name and the values of its labels


def told(text: str, index: str = "messages") -> Told:
    found: Told = {}
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix(PREFIX)
        series = BY_NAME[f"{name}_total" if family.type == "counter" else name]
        assert family.documentation == series.about
        for sample in family.samples:
            assert sample.labels["index"] == index
            found[(series.name, *(sample.labels[label] for label in series.labels))] = sample.value
    return found


def textfile(space: Workspace, more: str = "") -> Path:
    space.config.write_text(space.config.read_text() + f'[telemetry]\ntextfile = "metrics"\n{more}')
    return space.root / "metrics" / "embedmill.prom"


def test_a_life_as_prometheus_sees_it(workspace: Workspace) -> None:
    file = textfile(workspace, f'teams = ["{TEAM}"]\n[slo]\nlag_hours = 26\ncoverage = 0.999\n')
    assert workspace.run().code == 0
    first = told(file.read_text())
    assert first["last_run_chunks", "run", "embedded"] == 8 and first["last_run_chunks", "run", "deleted"] == 0
    assert (first["desired_chunks",], first["published_chunks",], first["coverage_ratio",]) == (8, 8, 1)
    assert first["lag_target_seconds",] == 26 * 3600 and first["coverage_target_ratio",] == 0.999
    assert first["team_chunks", TEAM] == 8 and first["last_run_ok", "run"] == 1
    assert 0 <= first["lag_seconds",] < 600 and first["state_files", "chunks"] >= 1 < first["state_bytes", "chunks"]
    assert first["last_run_index_rows", "run", "upserted"] == 8 and ("verify_differences", "ghost") not in first

    workspace.day("general", [message(0, "another"), *workspace.messages("general")[2:]])
    (workspace.files / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    assert workspace.run().code == 3
    second = told(file.read_text())
    assert (second["last_run_chunks", "run", "embedded"], second["last_run_chunks", "run", "deleted"]) == (1, 1)
    assert second["last_run_documents", "run", "quarantined"] == 1
    assert sum(value for name, value in second.items() if name[0] == "quarantine_records") == 1

    assert first["chunks_total", "embedded"] == 8 and second["chunks_total", "embedded"] == 9
    assert first["tokens_total",] == first["last_run_tokens", "run"] < second["tokens_total",]
    assert second["cost_usd_total",] >= first["cost_usd_total",] >= 0
    assert workspace.call("plan").code in (0, 3)
    assert told(file.read_text())["chunks_total", "embedded"] == 9, "a plan does nothing"

    assert workspace.verify().code == 0
    third = told(file.read_text())
    assert third["ghosts",] == third["verify_differences", "ghost"] == 0 == third["verify_repaired_rows",]
    assert third["last_success_timestamp_seconds", "run"] == second["last_success_timestamp_seconds", "run"]


def test_what_failed_was_killed_or_refused_is_told(ran: Workspace) -> None:
    file = textfile(ran)
    workspace_texts = [one for one in ran.messages("general") if one["text"] == TEXTS[0]]
    ran.config.write_text(ran.config.read_text() + "[limits]\nmax_delete_fraction = 0.1\nmax_delete_rows = 1\n")
    ran.day("general", workspace_texts)
    refused = ran.run()
    assert refused.code == 5, refused
    first = told(file.read_text())
    assert first["failed_runs", "run", "MassDeleteError"] == 1 and first["last_run_ok", "run"] == 0
    assert first["last_success_timestamp_seconds", "run"] < first["last_finish_timestamp_seconds", "run"]

    dying = open_pipeline(ran.config, Death(ahead_of="vectors"))
    with pytest.raises(Killed), open_session(dying, "gc", Scope(), 0.0):
        dying.state.drop("vectors", "true")
    with open_session(open_pipeline(ran.config), "run", Scope(), 0.0) as session:
        session.report.status = "ok"
        assert ran.call("gc").code == 5, "another run is writing"
        busy = told(file.read_text())
        assert busy["lease_refused",] == 1 and busy["killed_runs", "gc"] == 1 and busy["killed_runs", "run"] == 0
    assert ran.call("gc").code == 0
    assert told(file.read_text())["lease_refused",] == 0


def test_commands_that_only_look_send_nothing(ran: Workspace) -> None:
    file = textfile(ran)
    ran.call("status")
    ran.call("search", "lockers", "--team", TEAM)
    assert not file.parent.exists()


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """An address, and what was sent there: method and path, and body."""
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen.append((f"PUT {self.path}", body))
            self.send_response(200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_a_pushgateway_gets_the_whole_group_anew(ran: Workspace, gateway: tuple[str, list[tuple[str, str]]]) -> None:
    address, seen = gateway
    ran.config.write_text(ran.config.read_text() + f'[telemetry]\npushgateway = "{address}"\ninstance = "search-eu"\n')
    assert ran.run().code == 0
    [(asked, body)] = seen
    assert (
        asked == "PUT /metrics/job/embedmill/instance/search-eu"
        and told(body, "search-eu")["last_run_chunks", "run", "unchanged"] == 8
    )


def test_a_gateway_that_is_away_costs_a_line_and_no_run(ran: Workspace) -> None:
    ran.config.write_text(ran.config.read_text() + '[telemetry]\npushgateway = "http://127.0.0.1:9"\ntimeout = 1\n')
    done = ran.run()
    assert done.code == 0 and "telemetry.pushgateway: it took no metrics" in done.err, done


def test_no_label_holds_a_team_that_is_not_listed_or_a_text(ran: Workspace) -> None:
    file = textfile(ran)
    ran.run()
    said = file.read_text()
    assert not named_in(said, TEAM) and not any(text[:20] in said for text in TEXTS) and "notes.txt" not in said


# Fixed: other programs go by them.
FIXED = {
    "last_success_timestamp_seconds": ("command",),
    "run_duration_seconds": ("command", "step"),
    "chunks_total": ("outcome",),
    "quarantine_records": ("reason",),
    "lag_seconds": (),
    "coverage_ratio": (),
    "ghosts": (),
    "encoder_tokens_per_second": (),
    "cost_usd_total": (),
    "state_files": ("table",),
    "state_bytes": ("table",),
}


def test_names_that_are_fixed_stay() -> None:
    assert {name: BY_NAME[name].labels for name in FIXED} == FIXED


def test_each_instance_has_a_textfile_of_its_own(ran: Workspace) -> None:
    textfile(ran, 'instance = "search-eu"\n')
    ran.run()
    assert [file.name for file in (ran.root / "metrics").iterdir()] == ["embedmill-search-eu.prom"]


def test_every_series_has_a_help_and_a_unit_and_prometheus_takes_the_names() -> None:
    assert len({series.name for series in SERIES}) == len(SERIES)
    assert all(series.about.endswith(".") for series in SERIES)
    samples = [Sample(series.name, 1.0, tuple("x" for _ in series.labels)) for series in SERIES]
    from prometheus_client import generate_latest

    assert len(told(generate_latest(registry_of(samples, "messages")).decode())) == len(SERIES)
    with pytest.raises(KeyError):
        registry_of([Sample("no_such_series", 1.0)], "messages")


def test_speed_and_cost_are_told_beside_those_of_the_runs_before(ran: Workspace) -> None:
    import json

    state, day = open_pipeline(ran.config).state.for_writing(99), 86_400 * 1_000_000
    [row] = state.read("runs").to_pylist()
    for number, (ago, tokens, seconds) in enumerate([(0, 20_000, 20.0), (1, 40_000, 10.0), (2, 40_000, 40.0)]):
        report = json.loads(row["report"])
        report["tokens"]["embedded"], report["encode_seconds"] = tokens, seconds
        report["seconds"]["embed"] = seconds
        report["chunks"]["embedded"] = 1_000
        at = row["started_at"] - ago * day // 2 + (number == 0)
        state.change(
            "runs",
            [{**row, "run_id": f"r{number}", "report": json.dumps(report), "started_at": at, "_delete": False}],
        )
    ran.config.write_text(ran.config.read_text().replace("[model]\n", "[model]\nusd_per_hour = 3.6\n"))
    found = {(sample.name, *sample.labels): sample.value for sample in collect(open_pipeline(ran.config))}
    assert found["encoder_tokens_per_second",] == 1_000 and found["encoder_share_of_best_ratio",] == 0.25
    assert found["encoder_share_of_median_ratio",] == 1
    assert found["last_run_cost_usd", "run"] == pytest.approx(0.02)
    assert found["cost_usd_per_million_vectors",] == pytest.approx(20)
    assert found["cost_share_of_median_ratio",] == pytest.approx(1)
