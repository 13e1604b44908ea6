"""Few texts are encoded in a process beside the run's own, which a text may kill without harm to the others."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError, EmbedmillError, ResourceError
from jobs.config import load_config
from jobs.embed.encoder_process import EncoderProcess, ShardRequest
from jobs.embed.stored_shard import StoredShard
from jobs.embed.workers import EncodeShard, cut_shard, write_shard
from jobs.pipeline import FEW_BYTES, Pipeline
from jobs.state.store import State
from jobs.state.vector_column import unpack
from jobs.telemetry.error_reporting import fault_from_bytes
from jobs.telemetry.progress import Progress
from tests.support.workspace import Workspace, message, stage

KILLS, RAISES = "this one kills", "this one raises"

# Run by Python as it starts, in the process that encodes.
FRAGILE = """
import sys
if sys.argv[0] == "-c":
    from tests.jobs import test_encoder_process
    test_encoder_process.break_the_encoder()
"""


def break_the_encoder() -> None:
    """The stand-in encoder dies of one text and raises at another."""
    from embedding.encoders.local.hashed import HashEncoder

    encode = HashEncoder.encode

    def fragile(self: HashEncoder, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        if any(KILLS in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(RAISES in text for text in texts):
            raise ValueError("cannot encode it")
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
    work = root / "work" / "run"
    rows = {
        "team_id": ["T01"] * len(texts),
        "content_hash": [f"h{n}" for n in range(len(texts))],
        "text": list(texts),
        "tokens": [len(text.split()) + 2 for text in texts],
    }
    texts_of = stage(work / "texts", **{"shard=0": pa.table(rows)})
    return ShardRequest("shard=0", texts_of, work / "attempts", root / "state", "space", "run")


def stored(root: Path, shard: StoredShard) -> dict[str, Any]:
    tables = [pq.read_table(root / "state" / "vectors" / part.path, partitioning=None) for part in shard.parts]
    rows = pa.concat_tables(tables)
    return dict(zip(rows["content_hash"].to_pylist(), unpack(rows["vector"]).tolist(), strict=True))


def test_its_vectors_are_those_of_an_actor(tmp_path: Path, spec: EncoderSpec) -> None:
    texts = [f"report {n} from desk {n % 7}" for n in range(50)]
    request = asked(tmp_path, texts)
    process = EncoderProcess(spec)
    alone = StoredShard.of_row(process.encode(request))
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
    shard = StoredShard.of_row(process.encode(asked(tmp_path, texts)))
    assert process.pid != first, "another one went on"
    process.close()
    kills, raises = "kills_encoder", "encoder_fails"
    assert shard.failed == {("T01", "h1"): kills, ("T01", "h3"): raises, ("T01", "h4"): kills}
    assert set(stored(tmp_path, shard)) == {"h0", "h2", "h5"} and shard.texts == 3


def test_one_that_was_killed_from_outside_is_begun_again(tmp_path: Path, spec: EncoderSpec) -> None:
    process = EncoderProcess(spec)
    os.kill(process.pid, signal.SIGKILL)
    assert StoredShard.of_row(process.encode(asked(tmp_path, ["good", "fine"]))).texts == 2
    process.close()


def test_what_its_encoder_refuses_is_raised_here(tmp_path: Path, spec: EncoderSpec) -> None:
    process = EncoderProcess(replace(spec, backend="no_such"))
    with pytest.raises(ConfigError, match="no_such"):
        process.encode(asked(tmp_path, ["good"]))
    process.close()


def test_a_shard_that_cannot_be_written_is_no_text_s_fault(tmp_path: Path, spec: EncoderSpec) -> None:
    """Each such end was taken for one of a text, and one text after the other was left out."""
    request = asked(tmp_path, ["good", "fine"])
    (tmp_path / "state").write_text("a file, where tables would be")
    process = EncoderProcess(spec)
    row = process.encode(request)
    with pytest.raises(ResourceError, match="was not read or written"):
        raise fault_from_bytes(row["fault"])
    process.close()


def test_one_that_never_starts_is_given_up(tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    process = EncoderProcess(spec)
    with pytest.raises(ResourceError, match="did not start 3 times .exit code 1."):
        process.encode(asked(tmp_path, ["good"]))
    process.close()


def test_a_shard_that_cannot_be_read_is_no_text_s_fault(tmp_path: Path, spec: EncoderSpec) -> None:
    request = asked(tmp_path, ["good"])
    [file] = request.texts.paths
    assert isinstance(file, Path)
    file.write_bytes(b"damaged")
    process = EncoderProcess(spec)
    row = process.encode(request)
    with pytest.raises(EmbedmillError, match="unexpected ArrowInvalid at jobs/state/staging.py"):
        raise fault_from_bytes(row["fault"])
    process.close()


def test_one_that_ends_before_it_tries_a_text_is_given_up(
    tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = EncoderProcess(spec)
    monkeypatch.setattr(process, "_ask", lambda asked: (_ for _ in ()).throw(EOFError()))
    process._greeted = True
    monkeypatch.setattr(process, "_begin", lambda: None)
    with pytest.raises(EmbedmillError, match="ended 3 times"):
        process.encode(asked(tmp_path, ["good"]))
    process.close()


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


@pytest.mark.parametrize(
    ("shards", "address", "runs", "alone"),
    [(1, "local", False, True), (2, "local", False, False), (1, "auto", False, False), (1, "local", True, False)],
)
def test_when_it_is_used(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, shards: int, address: str, runs: bool, alone: bool
) -> None:
    workspace.config.write_text(workspace.config.read_text() + f'[ray]\naddress = "{address}"\n')
    monkeypatch.setattr("jobs.pipeline.ray_runs", lambda: runs)
    begun: list[str] = []
    monkeypatch.setattr(Pipeline, "_begin_on_ray", lambda pipeline: begun.append("ray"))
    monkeypatch.setattr(Pipeline, "encoder_process", lambda pipeline: begun.append("process"))
    pipeline = Pipeline(load_config(workspace.config), Progress())
    assert pipeline.encodes_alone(shards) == alone
    pipeline.start_encoding(FEW_BYTES - 1)
    pipeline.start_encoding(FEW_BYTES)
    assert begun == ["process" if address == "local" and not runs else "ray", "ray"]
