"""Hostile input: each is met by a limit, goes to quarantine with its reason, and costs nothing else.

Files are read as an executor reads them, in a process with limits; the last part is one run over all of it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.records import Document, Record, Rejected, Skipped
from embedding.text.clean import clean_text
from jobs.extract.isolated_reader import Reader
from jobs.sources.base import Partition, ReadLimits, SourceContext
from jobs.sources.files import FilesSource
from jobs.sources.slack_export import SlackExport
from tests.end_to_end.test_bad_input import assert_kept, published, reasons, texts
from tests.support.hostile_files import FILES, MESSAGES, NAMES, TEXTS, day, deep, one_line, said, stream_bomb
from tests.support.hostile_sources import Misbehaving
from tests.support.workspace import START, TEAM, Ran, Workspace, message

LIMITS = ReadLimits(seconds=3, memory_mb=640, text_chars=2_000_000)


class Watched:
    """A reader, and the most memory that any of its processes held, looked at a hundred times a second."""

    def __init__(self, limits: ReadLimits = LIMITS) -> None:
        self.reader = Reader(limits)
        self.peak = 0
        self.processes: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            process = self.reader._process
            if process is not None and process.pid:
                try:
                    self.peak = max(self.peak, psutil.Process(process.pid).memory_info().rss)
                    self.processes.add(process.pid)
                except psutil.Error:
                    continue

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.reader.close()
        assert max(self.peak, self.reader.peak_bytes) < self.reader.limits.memory_mb << 20


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    found = Watched()
    yield found
    found.close()


def files_source(root: Path, limits: ReadLimits = LIMITS, max_bytes: int = 100_000_000) -> FilesSource:
    context = SourceContext(root, "files", "", limits)
    return FilesSource(context, team_id=TEAM, channel_id="", max_bytes=max_bytes)


def read_one(watched: Watched, source: FilesSource, name: str) -> Record:
    [partition] = [p for p in source.listing().partitions if Path(p.path).name == name]
    [record] = watched.reader.read(source, partition)
    return record


# -- the process -------------------------------------------------------------------------------------------------------


def misbehave(watched: Watched, what: str, before: int = 0) -> list[Record]:
    source = Misbehaving(watched.reader.limits)
    return list(watched.reader.read(source, Partition(what, what, "", before, "C1", 7)))


@pytest.mark.parametrize(
    ("what", "reason", "detail", "retry"),
    [
        ("spin", "timeout", "3 seconds of processor time", False),
        ("hoard", "out_of_memory", "640 MB", False),
        ("crash", "crashed", "SIGSEGV", False),
        ("killed", "crashed", "SIGKILL", True),
        ("exit", "crashed", "exit code 3", False),
        ("raise", "crashed", "exit code 1", False),
        ("write", "crashed", "exit code 1", False),
    ],
)
def test_what_a_parser_may_do_costs_its_own_partition(
    watched: Watched, what: str, reason: str, detail: str, retry: bool
) -> None:
    """Also after it gave some records: those stand, and the last says that they are not all."""
    *said, last = misbehave(watched, what, before=1_100)
    assert said == [Skipped("said")] * 1_000, "two full messages came before it happened"
    assert last == Rejected("", reason, detail, "C1", 7, retry=retry, whole=True)
    assert misbehave(watched, "behave", before=3) == [Skipped("said")] * 3
    assert (
        not Path("/tmp/embedmill-written-by-a-parser").exists()
        or Path("/tmp/embedmill-written-by-a-parser").stat().st_size == 0
    )


def test_one_that_only_waits_is_tried_again() -> None:
    watched = Watched(ReadLimits(0.25, 640, 1000))
    [waited] = misbehave(watched, "sleep")
    assert isinstance(waited, Rejected) and (waited.reason, waited.retry) == ("timeout", True)
    watched.close()


def test_one_process_reads_all_that_behave(watched: Watched) -> None:
    misbehave(watched, "behave")
    before = set(watched.processes)
    for number in (0, 1, 499, 500, 501, 1_500):
        assert misbehave(watched, "behave", before=number) == [Skipped("said")] * number
    time.sleep(0.05)
    assert len(watched.processes - before) <= 1


def test_leaving_off_in_the_middle_leaves_nothing_for_the_next(watched: Watched) -> None:
    records = watched.reader.read(Misbehaving(LIMITS), Partition("p", "behave", "", 5_000))
    assert next(records) == Skipped("said")
    assert isinstance(records, Generator)
    records.close()
    assert misbehave(watched, "behave", before=2) == [Skipped("said")] * 2


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    (root / "good.md").write_text("# A good file\n\nthat is read after each of the others")
    return root


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in FILES.items()])
def test_hostile_file_is_in_quarantine_with_its_reason(watched: Watched, folder: Path, name: str, reason: str) -> None:
    (folder / name).write_bytes(FILES[name][0]())
    source = files_source(folder)
    found = read_one(watched, source, name)
    assert isinstance(found, Rejected) and found.whole is not found.ignored  # what holds no text protects nothing
    assert found.reason == reason
    assert len(found.detail) < 100 and str(folder) not in found.detail
    assert isinstance(read_one(watched, source, "good.md"), Document)


def test_entity_of_another_file_is_not_read(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "outside.xml").write_text(
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>words &f; words</x>'
    )
    found = read_one(watched, files_source(tmp_path), "outside.xml")
    assert isinstance(found, Rejected) or (isinstance(found, Document) and "root:" not in found.text)


def test_pdf_that_unpacks_to_two_gigabytes(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "bomb.pdf").write_bytes(stream_bomb(2_000_000_000))
    found = read_one(watched, files_source(tmp_path), "bomb.pdf")
    assert isinstance(found, Rejected) and found.reason in ("timeout", "out_of_memory", "crashed", "no_text")


def test_gigabyte_is_refused_by_its_size_and_not_read(watched: Watched, tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 30)
    started = time.monotonic()
    found = read_one(watched, files_source(tmp_path), "huge.txt")
    assert isinstance(found, Rejected) and found.reason == "too_large"
    assert time.monotonic() - started < 10


@pytest.mark.long
@pytest.mark.parametrize("name", ["line.txt", "line.json", "line.csv", "line.html", "line.md", "line.eml"])
def test_gigabyte_of_one_line_that_is_allowed_by_size_meets_the_memory_limit(
    watched: Watched, tmp_path: Path, name: str
) -> None:
    one_line(tmp_path / name, 1 << 30)
    found = read_one(watched, files_source(tmp_path, max_bytes=2 << 30), name)
    assert isinstance(found, Rejected) and found.reason == "out_of_memory"


def test_a_hundred_megabytes_of_one_line(watched: Watched, tmp_path: Path) -> None:
    one_line(tmp_path / "line.txt", 100_000_000)
    found = read_one(watched, files_source(tmp_path), "line.txt")
    assert isinstance(found, Rejected) and found.reason in ("too_much_text", "out_of_memory")


# -- Slack -------------------------------------------------------------------------------------------------------------


def export_of(root: Path, data: str) -> tuple[SlackExport, Partition]:
    (root / "general").mkdir()
    (root / "general" / "2025-03-03.json").write_text(data)
    source = SlackExport(root, source_id="export", team_id=TEAM, limits=LIMITS)
    [partition] = source.listing().partitions
    return source, partition


def test_large_day_is_read_apart_and_whole(watched: Watched, tmp_path: Path) -> None:
    records = ",".join(said(n, START, f"message {n} of a large day") for n in range(12_000))
    source, partition = export_of(tmp_path, f"[{records}]")
    assert source.isolation_limits(partition) == LIMITS
    assert list(watched.reader.read(source, partition)) == list(source.read(partition))


def test_deep_day_of_five_megabytes(watched: Watched, tmp_path: Path) -> None:
    source, partition = export_of(tmp_path, f"[{said(1, START, 'before')},{deep(2_500_000)},{said(2, START, 'after')}]")
    first, bad, last = watched.reader.read(source, partition)
    assert isinstance(first, Document) and isinstance(last, Document)
    assert isinstance(bad, Rejected) and (bad.key, bad.reason, bad.whole) == ("@1", "too_deep", False)


def test_day_of_many_small_objects_meets_the_memory_limit(watched: Watched, tmp_path: Path) -> None:
    source, partition = export_of(tmp_path, "[" + "{}," * 20_000_000 + "{}]")
    [found] = watched.reader.read(source, partition)
    assert isinstance(found, Rejected) and (found.reason, found.whole) == ("out_of_memory", True)


@pytest.mark.long
def test_gigabyte_of_one_message(watched: Watched, tmp_path: Path) -> None:
    source, partition = export_of(tmp_path, "[]")
    assert isinstance(source.root, Path)
    one_line(source.root / partition.path, 1_000_000_000, b'[{"ts": "1.0", "text": "', b'"}]')
    [partition] = source.listing().partitions
    [found] = watched.reader.read(source, partition)
    assert isinstance(found, Rejected) and found.reason == "out_of_memory"


def test_names_larger_than_any_workspace_are_not_read(tmp_path: Path) -> None:
    source, _ = export_of(tmp_path, "[]")
    with (tmp_path / "users.json").open("wb") as file:
        file.truncate(1 << 30)
    listing = source.listing()
    assert [(r.key, r.reason) for r in listing.rejected] == [("users.json", "too_large")] and not listing.complete


# -- text --------------------------------------------------------------------------------------------------------------

MARKS = st.text(st.sampled_from("a\u0301\u0316\u0323\u0344\u0f73\u1e69\u00e9\u202e\u200d\U0001f468"), max_size=400)


@given(MARKS)
def test_marks_are_ordered_as_unicode_orders_them(text: str) -> None:
    import unicodedata

    assert clean_text(text) == unicodedata.normalize("NFC", text).strip()


def test_a_megabyte_of_marks_out_of_order_is_no_minute() -> None:
    started = time.process_time()
    clean_text("a" + "\u0301\u0316" * 250_000)
    assert time.process_time() - started < 20


# -- a run -------------------------------------------------------------------------------------------------------------


# The workspace, what was published before, and what the run ended with.
_RunOverAll = tuple[Workspace, dict[str, str], Ran]


@pytest.fixture(scope="module")
def run_over_all(tmp_path_factory: pytest.TempPathFactory) -> _RunOverAll:
    space = Workspace(tmp_path_factory.mktemp("all") / "ws")
    with space.config.open("a") as config:
        config.write("[limits]\nparse_seconds = 8\nparse_memory_mb = 640\nparse_text_chars = 2000000\n")
    assert space.run().code == 0
    before = published(space)
    for name, (make, _) in FILES.items():
        (space.files / name).write_bytes(make())
    for number, name in enumerate(NAMES):
        (space.files / name).write_bytes(f"the words of file number {number}".encode())
    (space.export / "general" / "2025-03-04.json").write_text(day(START))
    (space.export / "new\nline").mkdir()
    space.day("new\nline", [message(500, "in a channel whose name has two lines")])
    (space.export / "random" / "2025-03-03.json\n").write_text("[]")
    return space, before, space.run()


@pytest.mark.long
def test_run_over_everything_hostile_publishes_all_the_rest(run_over_all: _RunOverAll) -> None:
    space, before, ran = run_over_all
    assert ran.code == 3
    found = reasons(space)
    assert {name: found[name.replace(" ", "%20")] for name in FILES} == {n: reason for n, (_, reason) in FILES.items()}
    shown = set(texts(space).values())
    assert {f"the words of file number {n}" for n in range(len(NAMES))} <= shown
    assert {f"plain number {n}" for n in range(len(MESSAGES) + len(TEXTS))} <= shown
    assert "in a channel whose name has two lines" in shown
    assert {text for _, reason, text in MESSAGES.values() if reason is None} <= shown
    assert {text for _, text in TEXTS.values() if text is not None} <= shown
    assert {reason for key, reason in found.items() if key.startswith("C1/")} == {"too_deep"}
    assert len(found) == len(FILES) + 1
    assert_kept(space, before, ran)


@pytest.mark.long
def test_no_id_or_line_of_output_has_a_line_break_or_climbs(run_over_all: _RunOverAll) -> None:
    space, _, ran = run_over_all
    for chunk in published(space):
        assert chunk.isprintable() and "/../" not in chunk and chunk.isascii()
    assert ran.err == ""
    assert "\n" not in json.dumps(ran.body)
    assert not [p for p in space.root.parent.rglob("*") if p.name in ("boot.ini", "passwd", "touch")]
    assert os.listdir(space.root.parent) == ["ws"]
