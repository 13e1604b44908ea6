"""Few texts are encoded in a process beside the run's own, which a text may kill without harm to the others."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError, EmbedmillError, ResourceError
from jobs.config import load_config
from jobs.embed.encoder_process import EncoderProcess, ShardRequest
from jobs.embed.stored_shard import StoredShard
from jobs.embed.workers import EncodeShard, cut_shard, write_shard
from jobs.pipeline import FEW_BYTES, TOKEN_BYTES, Pipeline
from jobs.state.staging import Staged
from jobs.state.store import State
from jobs.state.vector_column import unpack
from jobs.telemetry.error_reporting import fault_from_bytes
from jobs.telemetry.progress import Progress
from tests.support.workspace import Workspace, message, stage

KILLS, RAISES, SLOW = "this one kills", "this one raises", "this one takes a minute"
UNCUT, PANICS = "this one ends what cuts it", "this one makes what cuts it panic"

# Run by Python as it starts, in the process that encodes.
FRAGILE = """
import sys
if sys.argv[0] == "-c":
    from tests.jobs import test_encoder_process
    test_encoder_process.break_the_encoder()
"""


def break_the_encoder() -> None:
    """The stand-in encoder dies of one text, raises at another and sleeps at a third; so does what cuts texts."""
    from embedding.encoders.local.hashed import HashEncoder
    from jobs.embed import encoder_process

    def fragile_cut(batch: pa.Table, texts: Staged, spec: EncoderSpec) -> pa.Table:
        [name] = batch["shard"].to_pylist()
        found = texts.within(name).table()["text"].to_pylist()
        if UNCUT in found:
            os.kill(os.getpid(), signal.SIGKILL)
        if PANICS in found:
            raise BaseException("a panic in Rust is no Exception")  # noqa: TRY002
        return cut_shard(batch, texts, spec)

    setattr(encoder_process, "cut_shard", fragile_cut)  # noqa: B010 - an assignment has no type

    encode = HashEncoder.encode

    def fragile(self: HashEncoder, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        if any(KILLS in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(RAISES in text for text in texts):
            raise ValueError("cannot encode it")
        if any(SLOW in text for text in texts):
            time.sleep(60)
        return encode(self, texts, tokens)

    setattr(HashEncoder, "encode", fragile)  # noqa: B010 - an assignment has no type


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "fragile"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FRAGILE)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


@pytest.fixture
def spec(workspace: Workspace) -> EncoderSpec:
    return Pipeline(load_config(workspace.config), Progress()).encoder()


def asked(root: Path, texts: Sequence[str]) -> ShardRequest:
    [request] = asked_shards(root, [texts])
    return request


def asked_shards(root: Path, shards: Sequence[Sequence[str]]) -> list[ShardRequest]:
    """A request for each of some shards, whose hashes go on from one to the next."""
    work, staged, first = root / "work" / "run", {}, 0
    for number, texts in enumerate(shards):
        rows = {
            "team_id": ["T01"] * len(texts),
            "content_hash": [f"h{first + n}" for n in range(len(texts))],
            "text": list(texts),
            "tokens": [len(text.split()) + 2 for text in texts],
        }
        staged[f"shard={number}"] = pa.table(rows)
        first += len(texts)
    texts_of = stage(work / "texts", **staged)
    return [ShardRequest(name, texts_of, work / "attempts", root / "state", "space", "run") for name in staged]


def encoded(process: EncoderProcess, request: ShardRequest) -> Mapping[str, Any]:
    """The row of one shard."""
    [row] = process.encode([request])
    return row


def stored(root: Path, shard: StoredShard) -> dict[str, Any]:
    tables = [pq.read_table(root / "state" / "vectors" / part.path, partitioning=None) for part in shard.parts]
    rows = pa.concat_tables(tables)
    return dict(zip(rows["content_hash"].to_pylist(), unpack(rows["vector"]).tolist(), strict=True))


def test_its_vectors_are_those_of_an_actor(tmp_path: Path, spec: EncoderSpec) -> None:
    texts = [f"report {n} from desk {n % 7}" for n in range(50)]
    request = asked(tmp_path, texts)
    process = EncoderProcess(spec)
    alone = StoredShard.of_row(encoded(process, request))
    process.close()
    cut = cut_shard(pa.table({"shard": [request.name]}), request.texts, spec)
    rows = EncodeShard(spec)(cut, tmp_path / "attempts")
    [row] = write_shard(rows, request.root, "space", "run").to_pylist()
    actor = StoredShard.of_row(row)
    assert (alone.texts, alone.tokens, alone.name) == (actor.texts, actor.tokens, actor.name) == (50, 350, "shard=0")
    assert stored(tmp_path, alone) == stored(tmp_path, actor)


def test_a_text_that_kills_it_and_one_that_raises_are_left_out(
    tmp_path: Path, spec: EncoderSpec, fragile: None
) -> None:
    texts = ["good", KILLS, "fine", RAISES, KILLS + " too", "well"]
    process = EncoderProcess(spec)
    first = process.pid
    shard = StoredShard.of_row(encoded(process, asked(tmp_path, texts)))
    assert process.pid != first, "another one went on"
    process.close()
    kills, raises = "kills_encoder", "encoder_fails"
    assert shard.failed == {("T01", "h1"): kills, ("T01", "h3"): raises, ("T01", "h4"): kills}
    assert set(stored(tmp_path, shard)) == {"h0", "h2", "h5"} and shard.texts == 3


def test_one_that_was_killed_from_outside_is_begun_again(tmp_path: Path, spec: EncoderSpec) -> None:
    process = EncoderProcess(spec)
    os.kill(process.pid, signal.SIGKILL)
    assert StoredShard.of_row(encoded(process, asked(tmp_path, ["good", "fine"]))).texts == 2
    process.close()


def test_what_its_encoder_refuses_is_raised_here(tmp_path: Path, spec: EncoderSpec) -> None:
    process = EncoderProcess(replace(spec, backend="no_such"))
    with pytest.raises(ConfigError, match="no_such"):
        encoded(process, asked(tmp_path, ["good"]))
    process.close()


def test_a_shard_that_cannot_be_written_is_no_text_s_fault(tmp_path: Path, spec: EncoderSpec) -> None:
    """Each such end was taken for one of a text, and one text after the other was left out."""
    request = asked(tmp_path, ["good", "fine"])
    (tmp_path / "state").write_text("a file, where tables would be")
    process = EncoderProcess(spec)
    row = encoded(process, request)
    with pytest.raises(ResourceError, match="was not read or written"):
        raise fault_from_bytes(row["fault"])
    process.close()


def test_one_that_never_starts_is_given_up(tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    process = EncoderProcess(spec)
    with pytest.raises(ResourceError, match="did not start 3 times .exit code 1."):
        encoded(process, asked(tmp_path, ["good"]))
    process.close()


def test_a_shard_that_cannot_be_read_is_no_text_s_fault(tmp_path: Path, spec: EncoderSpec) -> None:
    request = asked(tmp_path, ["good"])
    [file] = request.texts.paths
    assert isinstance(file, Path)
    file.write_bytes(b"damaged")
    process = EncoderProcess(spec)
    row = encoded(process, request)
    with pytest.raises(EmbedmillError, match="unexpected ArrowInvalid at jobs/state/staging.py"):
        raise fault_from_bytes(row["fault"])
    process.close()


@pytest.mark.parametrize(("text", "code"), [(UNCUT, -9), (PANICS, 1)], ids=["killed", "a panic in Rust"])
def test_one_that_ends_before_it_tries_a_text_is_given_up(
    tmp_path: Path, spec: EncoderSpec, fragile: None, text: str, code: int
) -> None:
    """And is no wait without end."""
    process = EncoderProcess(spec)
    with pytest.raises(EmbedmillError, match=f"ended 3 times .exit code {code}."):
        encoded(process, asked(tmp_path, ["good", text]))
    process.close()


def test_it_ends_with_who_asked_and_not_after_what_it_is_busy_with(
    tmp_path: Path, spec: EncoderSpec, fragile: None
) -> None:
    """Else it would go on asking a service for what nobody takes, beside the run that comes next."""
    process, request = EncoderProcess(spec), asked(tmp_path, [SLOW])
    process._greet()
    process._pipe.send(request)
    while not (request.attempts / request.name).exists():
        time.sleep(0.05)
    process._pipe.close()  # as where this process is killed
    assert process._process.wait(20) == 1
    process.close()


# -- several shards ----------------------------------------------------------------------------------------------------


def test_shards_come_in_their_order_and_each_once(tmp_path: Path, spec: EncoderSpec) -> None:
    shards = [[f"report {n} from desk {shard}" for n in range(5)] for shard in range(12)]
    process = EncoderProcess(spec)
    rows = [StoredShard.of_row(row) for row in process.encode(asked_shards(tmp_path, shards))]
    process.close()
    assert [row.name for row in rows] == [f"shard={n}" for n in range(12)]
    assert [list(stored(tmp_path, row)) for row in rows] == [[f"h{5 * n + m}" for m in range(5)] for n in range(12)]


def test_a_text_that_kills_it_costs_the_next_shard_nothing(tmp_path: Path, spec: EncoderSpec, fragile: None) -> None:
    """The next one is already cut then."""
    process = EncoderProcess(spec)
    shards = [["good"], ["fine", KILLS], ["well", RAISES], ["last"]]
    rows = [StoredShard.of_row(row) for row in process.encode(asked_shards(tmp_path, shards))]
    process.close()
    assert [row.texts for row in rows] == [1, 1, 1, 1]
    assert [row.failed for row in rows] == [
        {},
        {("T01", "h2"): "kills_encoder"},
        {("T01", "h4"): "encoder_fails"},
        {},
    ]


def test_what_dies_while_the_next_shard_is_cut_is_no_fault_of_this_one(
    tmp_path: Path, spec: EncoderSpec, fragile: None
) -> None:
    process = EncoderProcess(spec)
    rows = process.encode(asked_shards(tmp_path, [["good", "fine"], ["well", UNCUT]]))
    first = StoredShard.of_row(next(rows))
    assert (first.texts, first.failed) == (2, {})
    with pytest.raises(EmbedmillError, match="ended 3 times"):
        next(rows)
    process.close()


def test_a_loop_that_is_left_does_not_answer_the_next_one(tmp_path: Path, spec: EncoderSpec) -> None:
    process = EncoderProcess(spec)
    rows = process.encode(asked_shards(tmp_path / "one", [["good"], ["fine"], ["well"]]))
    assert next(rows)["shard"] == "shard=0"
    rows.close()
    again = StoredShard.of_row(encoded(process, asked(tmp_path / "two", ["other", "texts"])))
    process.close()
    assert again.texts == 2 and set(stored(tmp_path / "two", again)) == {"h0", "h1"}


# -- in a run ----------------------------------------------------------------------------------------------------------


def test_a_run_of_few_texts_starts_no_ray_and_quarantines_what_kills_the_encoder(
    ran: Workspace, fragile: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "_begin_on_ray", None)  # called, it would raise
    monkeypatch.setattr("jobs.pipeline.ray_runs", lambda: False)  # of another test's
    before = ran.messages("general")
    ran.day("general", [*before, message(50, KILLS), message(51, "The tram stops at the museum")])
    body = ran.run().body
    assert (body["status"], body["chunks"]["embedded"], body["documents"]["quarantined"]) == ("partial", 1, 1)
    rows = State(ran.root / "state").read("quarantine", ["key", "reason"]).to_pylist()
    assert [row["reason"] for row in rows] == ["kills_encoder"] and "50." in rows[0]["key"]
    assert ran.verify().code == 0
    again = ran.run().body
    assert again["documents"]["quarantined"] == 1, "it is tried again, and found again"
    ran.day("general", [*before, message(51, "The tram stops at the museum")])
    assert ran.run().code == 0 and ran.quarantine() == {}


def test_a_run_killed_while_it_encodes_alone_leaves_no_process(ran: Workspace) -> None:
    """Its end is the end of the pipe."""
    pipeline = Pipeline(load_config(ran.config), Progress())
    process = pipeline.encoder_process()
    process._pipe.close()
    assert process._process.wait(60) == 0


FEW, MANY = 1_000, 2_000_000  # tokens


@pytest.mark.parametrize(
    ("plan", "more", "runs", "alone"),
    [
        ((1, FEW), "", False, True),
        ((9, FEW), "", False, True),
        ((9, MANY), "", False, False),
        ((1, MANY), "", False, True),
        ((9, FEW), "min_tokens = 0\n", False, False),
        ((9, FEW), "min_tokens = 0\n[model]\nactors = 2\n", False, False),
        ((9, FEW), '[model]\nactors = 1\nmax_actors = 2\nbackend = "hash"\n', False, False),
        ((1, FEW), 'address = "auto"\n', False, False),
        ((1, FEW), '[model]\ngpus_per_actor = 1\nbackend = "hash"\n', False, False),
        ((1, FEW), "", True, False),
    ],
)
def test_when_it_is_used(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    plan: tuple[int, int],
    more: str,
    runs: bool,
    alone: bool,
) -> None:
    """A plan of so many shards and tokens, on a machine without a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = workspace.config.read_text()
    if "[model]" in more:
        text = text.replace('[model]\nbackend = "hash"\n', "")
    workspace.config.write_text(text + f"[ray]\n{more}")
    monkeypatch.setattr("jobs.pipeline.ray_runs", lambda: runs)
    pipeline = Pipeline(load_config(workspace.config), Progress())
    assert pipeline.encodes_alone(*plan) == alone


@pytest.mark.parametrize("gpus", ["0", "0.5"])
def test_it_sees_no_gpu_where_actors_are_to_have_none(workspace: Workspace, gpus: str) -> None:
    text = workspace.config.read_text().replace("[model]\n", f"[model]\ngpus_per_actor = {gpus}\n")
    workspace.config.write_text(text)
    process = Pipeline(load_config(workspace.config), Progress()).encoder_process()
    seen = psutil.Process(process.pid).environ().get("CUDA_VISIBLE_DEVICES")
    process.close()
    assert (seen == "") == (gpus == "0")


@pytest.mark.parametrize(
    ("reading", "more", "runs", "begun"),
    [
        (FEW_BYTES - 1, "", False, "process"),
        (MANY * TOKEN_BYTES - 1, "", False, "process"),
        (MANY * TOKEN_BYTES, "", False, "ray"),
        (FEW_BYTES - 1, "min_tokens = 0\n", False, "process"),
        (FEW_BYTES, "min_tokens = 0\n", False, "ray"),
        (FEW_BYTES - 1, 'address = "auto"\n', False, "ray"),
        (FEW_BYTES - 1, "", True, "ray"),
    ],
)
def test_what_is_begun_before_the_plan_is_known(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, reading: int, more: str, runs: bool, begun: str
) -> None:
    workspace.config.write_text(workspace.config.read_text() + f"[ray]\n{more}")
    monkeypatch.setattr("jobs.pipeline.ray_runs", lambda: runs)
    seen: list[str] = []
    monkeypatch.setattr(Pipeline, "_begin_on_ray", lambda pipeline: seen.append("ray"))
    monkeypatch.setattr(Pipeline, "encoder_process", lambda pipeline: seen.append("process"))
    Pipeline(load_config(workspace.config), Progress()).start_encoding(reading)
    assert seen == [begun]


def test_one_that_was_begun_for_less_than_there_is_ends_where_ray_encodes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a reindex that reads little: it would hold a model beside that of the actor, for as long as that works."""
    monkeypatch.setattr("jobs.embed.embed.ready", lambda config, state, spec: spec)
    pipeline = Pipeline(load_config(workspace.config), Progress())
    pipeline.start_encoding(1)
    begun = psutil.Process(pipeline.encoder_process().pid)
    assert not pipeline.encodes_alone(9, MANY)
    pipeline.encoding()
    running = begun.is_running()
    pipeline.close()
    assert not running
