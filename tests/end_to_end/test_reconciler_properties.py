"""Property: whatever happens to the source between two runs, a run ends with index == desired, at the least cost.

A state machine posts, edits, deletes, renames, tears and mends; an oracle of a few dictionaries says what the index
must then hold and what the run had to encode. EMBEDMILL_TEST_EXAMPLES asks for more than the few sequences of CI.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from embedding import ids
from embedding.chunking import Chunker
from embedding.encoders.local.hashed import HashEncoder
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.telemetry.progress import Progress
from tests.support.workspace import START, TEAM, Workspace, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here", "small_row_groups")

EXAMPLES = int(os.environ.get("EMBEDMILL_TEST_EXAMPLES", "2"))
CHANNELS = ("C1", "C2")
# Few short texts, so that one is often posted twice; and long ones, of several chunks, that differ at one end.
TEXTS = st.sampled_from(
    ["the lift is broken", "soup today", "ship it", "who has the key?", "the build is green again"]
    + [("a line of a long report\n" * 90) + end for end in ("", "with a last word", "signed, the committee")]
)
FILES = ("plan.txt", "minutes.txt", "list.txt")

Shown = dict[str, tuple[str, str, str]]  # chunk id: channel, channel name, text


class Reconciling(RuleBasedStateMachine):
    """The source as dictionaries beside the source on disk."""

    base: Path
    messages = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        # Kept until the session ends: the first workspace of a process holds the scratch folder of its Spark.
        self.workspace = Workspace(Path(tempfile.mkdtemp(dir=self.base)) / "ws")
        for file in self.workspace.files.iterdir():
            file.unlink()
        (self.workspace.files / "always.txt").write_text("A root that is empty is an error.\n")
        pipeline = Pipeline(load_config(self.workspace.config), Progress())
        self.chunker = Chunker(pipeline.model / "tokenizer.json", pipeline.limits)
        self.hash_key = pipeline.state.for_writing(1).hash_key
        self.names = {"C1": "general", "C2": "random"}
        self.said: dict[str, dict[str, str]] = {channel: {} for channel in CHANNELS}  # ts: text
        self.filed: dict[str, str] = {"always.txt": "A root that is empty is an error."}
        self.torn: set[str] = set()
        self.published: Shown = {}
        self.encoded: set[str] = set()
        self.clock = 0

    def teardown(self) -> None:
        self.reconcile()

    # -- what happens to a source --------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        for channel in CHANNELS:
            self._write_day(channel)

    @rule(target=messages, channel=st.sampled_from(CHANNELS), texts=st.lists(TEXTS, min_size=1, max_size=4))
    def post(self, channel: str, texts: list[str]) -> MultipleResults[tuple[str, str]]:
        posted = []
        for text in texts:
            self.clock += 1
            ts = f"{START + self.clock}.000100"
            self.said[channel][ts] = text
            posted.append((channel, ts))
        self._write_day(channel)
        return multiple(*posted)

    @rule(at=messages, text=TEXTS)
    def edit(self, at: tuple[str, str], text: str) -> None:
        channel, ts = at
        if ts in self.said[channel]:
            self.said[channel][ts] = text
            self._write_day(channel)

    @rule(at=messages)
    def delete(self, at: tuple[str, str]) -> None:
        self.said[at[0]].pop(at[1], None)
        self._write_day(at[0])

    @rule(channel=st.sampled_from(CHANNELS), name=st.sampled_from(["lobby", "harbour"]))
    def rename_channel(self, channel: str, name: str) -> None:
        old, new = self.names[channel], f"{name}-{channel.lower()}"
        if old != new and channel not in self.torn:
            self.workspace.rename(channel, old, new)
            self.names[channel] = new

    @rule(path=st.sampled_from(FILES), text=TEXTS)
    def write_file(self, path: str, text: str) -> None:
        self.filed[path] = text.strip()
        (self.workspace.files / path).write_text(text)

    @rule(path=st.sampled_from(FILES))
    def remove_file(self, path: str) -> None:
        self.filed.pop(path, None)
        (self.workspace.files / path).unlink(missing_ok=True)

    @rule(old=st.sampled_from(FILES), new=st.sampled_from(FILES))
    def move_file(self, old: str, new: str) -> None:
        if old in self.filed and old != new:
            self.filed[new] = self.filed.pop(old)
            (self.workspace.files / old).replace(self.workspace.files / new)

    @rule(channel=st.sampled_from(CHANNELS))
    def tear(self, channel: str) -> None:
        """Half a file: what was published of it must stay until it can be read again."""
        self.torn.add(channel)
        self._write_day(channel)

    @rule(channel=st.sampled_from(CHANNELS))
    def mend(self, channel: str) -> None:
        self.torn.discard(channel)
        self._write_day(channel)

    def _write_day(self, channel: str) -> None:
        folder = self.names[channel]
        day = [message(0, text) | {"ts": ts} for ts, text in sorted(self.said[channel].items())]
        path = self.workspace.day(folder, day)
        if channel in self.torn:
            whole = path.read_text()
            path.write_text(whole[: max(1, len(whole) // 2)])

    # -- what a run must make of it ------------------------------------------------------------------------------------

    def _desired(self) -> Shown:
        desired: Shown = {}
        for channel, said in self.said.items():
            if channel in self.torn:
                desired |= {k: row for k, row in self.published.items() if row[0] == channel}
                continue
            for ts, text in said.items():
                desired |= self._cut(ids.message_id(TEAM, channel, ts), channel, self.names[channel], text)
        for path, text in self.filed.items():
            desired |= self._cut(ids.file_id(TEAM, path), "", "", text)
        return desired

    def _cut(self, doc_id: str, channel: str, name: str, text: str) -> Shown:
        text = text.strip()
        spans = self.chunker.split_batch([text])[0]
        return {ids.chunk_id(doc_id, n): (channel, name, text[s.start : s.end]) for n, s in enumerate(spans)}

    @rule()
    def reconcile(self) -> None:
        desired = self._desired()
        texts = {row[2] for row in desired.values()}
        ran = self.workspace.run("--allow-mass-delete")
        assert ran.code == (3 if self.torn else 0), ran
        done = counts(ran)
        assert done.get("embedded", 0) == len(texts - self.encoded), "a text is encoded once, ever"
        assert done.get("deleted", 0) == len(self.published.keys() - desired.keys())
        wrote = {k for k, row in desired.items() if self.published.get(k) != row}
        assert ran.body["index_rows"]["upserted"] >= len(wrote)
        assert ran.body["index_rows"]["after"] == ran.body["chunks"]["total"] == len(desired)
        self.published, self.encoded = desired, self.encoded | texts
        self._compare()

    @rule()
    def run_again(self) -> None:
        """Right after a run there is nothing to do; after changes this is one more run."""
        self.reconcile()
        again = self.workspace.run()
        assert counts(again) == {} and again.body["partitions"]["opened"] == 0

    def _compare(self) -> None:
        assert self.workspace.verify().code == 0
        pipeline = Pipeline(load_config(self.workspace.config), Progress())
        try:
            held = {
                row["chunk_id"]: row for batch in pipeline.index().scan("messages__v1") for row in batch.to_pylist()
            }
            assert {k: (row["channel_id"], row["content_hash"]) for k, row in held.items()} == {
                k: (channel, ids.content_hash(self.hash_key, TEAM, text))
                for k, (channel, _, text) in self.published.items()
            }
            names = pipeline.state.read("chunks", ["chunk_id", "channel_name"])
            assert {r["chunk_id"]: r["channel_name"] for r in names.to_pylist()} == {
                k: name for k, (_, name, _) in self.published.items()
            }
            keys = sorted(self.published)
            vectors = pipeline.index().fetch_vectors("messages__v1", keys)
            expected = HashEncoder().encode([self.published[k][2] for k in keys], np.empty(0, np.int64))
            np.testing.assert_allclose(np.stack([vectors[k] for k in keys]), expected, atol=1e-6)
            ledger = pipeline.state.read("published", ["index", "chunk_id"])
            assert pc.count_distinct(ledger["chunk_id"]).as_py() == len(ledger) == len(keys), "nothing doubled"
        finally:
            pipeline.close()


def test_a_run_always_ends_with_index_equal_to_desired(tmp_path: Path) -> None:
    Reconciling.base = tmp_path
    run_state_machine_as_test(
        Reconciling,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=12,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],  # a step costs seconds: report the sequence as it was found
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
