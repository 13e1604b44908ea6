"""The series: names, meanings, labels. Alerts, dashboards and other programs go by them: add, never rename.

Units are in the names, as Prometheus has it. Every label has few values: a team is one only where it is listed.
``index`` is ``telemetry.instance``, or the index's name: two indexes of one machine are told apart by it.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "embedmill_"


@dataclass(frozen=True, slots=True)
class Series:
    """``about`` is its help; beside its labels each has ``index``."""

    name: str
    about: str
    labels: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is a counter, which only grows; the others are gauges."""
        return self.name.endswith("_total")


SERIES = (
    Series("info", "What runs: 1, with the version of embedmill and the space.", ("version", "space_id")),
    Series("last_success_timestamp_seconds", "When the newest run of a command that ended well began.", ("command",)),
    Series("last_finish_timestamp_seconds", "When the newest run of a command ended, however it did.", ("command",)),
    Series(
        "last_run_ok", "1 where the newest run of a command ended well, also with records in quarantine.", ("command",)
    ),
    Series(
        "last_error", "1 where the newest run of a command failed, with the class of the error.", ("command", "error")
    ),
    Series("failed_runs", "Runs of the last 30 days that failed, by the class of the error.", ("command", "error")),
    Series("killed_runs", "Runs of the last 24 hours that never said how they ended.", ("command",)),
    Series("lease_refused", "1 where a command was refused a moment ago because another run is writing."),
    Series("lease_held_seconds", "How long the run that holds the lease has been at work; 0 where none does."),
    Series("lease_wait_seconds", "How long the newest run of a command waited for another.", ("command",)),
    Series(
        "run_duration_seconds",
        "Seconds of each step of the newest run of a command; total is from start to end.",
        ("command", "step"),
    ),
    Series("last_run_documents", "Documents of the newest run of a command, by outcome.", ("command", "outcome")),
    Series("last_run_chunks", "Chunks of the newest run of a command, by outcome.", ("command", "outcome")),
    Series("chunks_total", "Chunks of all runs that are on record, by outcome.", ("outcome",)),
    Series("tokens_total", "Tokens that all runs on record encoded."),
    Series("last_run_tokens", "Tokens that the newest run of a command encoded.", ("command",)),
    Series("last_run_index_rows", "Rows that the newest run of a command wrote and deleted.", ("command", "change")),
    Series(
        "indexed_through_timestamp_seconds",
        "When the newest good run over everything began: the index is of that time.",
    ),
    Series("lag_seconds", "Age of that time when the metrics were told."),
    Series("lag_target_seconds", "What the lag may be (slo.lag_hours)."),
    Series("desired_chunks", "Chunks that the sources hold."),
    Series("published_chunks", "Chunks that the ledger has of the live version."),
    Series(
        "coverage_ratio",
        "Published by desired chunks, in number, 0 to 1; untold while a run is under way or a plan came after it.",
    ),
    Series("coverage_target_ratio", "What the coverage must be (slo.coverage)."),
    Series("team_chunks", "Desired chunks of a team that telemetry.teams lists.", ("team",)),
    Series("quarantined", "Records in quarantine, of all reasons."),
    Series("quarantine_records", "Records in quarantine, by reason.", ("reason",)),
    Series("held_deletions", "Documents that may be gone and stay until what hides them can be read."),
    Series("oldest_held_deletion_seconds", "Age of the oldest of them; 0 where there is none."),
    Series("held_deletion_target_seconds", "What that age may be (slo.held_deletion_hours)."),
    Series("verify_differences", "Rows that the newest verify over everything leaves different, by kind.", ("kind",)),
    Series("ghosts", "Rows of the index that nothing wants, as the newest verify over everything left it."),
    Series("verify_repaired_rows", "Rows that the newest verify mended."),
    Series("encoder_tokens_per_second", "Speed of encoding in the newest run that encoded enough to tell."),
    Series("encoder_share_of_best_ratio", "That speed by the best of the last 24 hours of runs, 0 to 1."),
    Series("encoder_share_of_median_ratio", "That speed by the median of the last 30 days."),
    Series("last_run_cost_usd", "Estimated cost of encoding in the newest run of a command.", ("command",)),
    Series("cost_usd_total", "The same of all runs on record, by the model.usd_per_hour of today."),
    Series("cost_usd_per_million_vectors", "The same by the vectors that it stored, of the newest run that encoded."),
    Series("cost_share_of_median_ratio", "The cost of the newest run by the median of the last 30 days."),
    Series(
        "last_run_service_requests",
        "Requests to a managed model in the newest run of a command.",
        ("command", "outcome"),
    ),
    Series(
        "last_run_endpoint_requests",
        "The same of each endpoint, where there are several; opened counts how often it was left out.",
        ("command", "endpoint", "outcome"),
    ),
    Series("state_files", "Data files of a table of the state.", ("table",)),
    Series("state_bytes", "Bytes of these files.", ("table",)),
)
BY_NAME = {series.name: series for series in SERIES}
