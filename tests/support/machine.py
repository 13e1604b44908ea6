"""The state machine of the model-based test: whatever happens to sources and runs, index == desired at the least cost.

Commands may die at any of their writes, have any scope, and come between the steps of another run. After each, every
table and every version of the index is compared with the model, key by key.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from embedding import ids
from embedding.chunking import Chunker
from embedding.encoders.local.hashed import HashEncoder
from indexers.base import version_number
from jobs.bodies.base import Body
from jobs.bodies.run import ReindexBody, RunReport
from jobs.commands.gc import gc
from jobs.commands.purge import purge
from jobs.commands.reindex import reindex
from jobs.commands.rollback import rollback
from jobs.commands.run import run
from jobs.commands.step import StepRequest, step
from jobs.scope import Scope
from jobs.sources import open_sources
from jobs.versions import versions_to_keep
from tests.support.in_process import Death, Killed, WatchedIndex, open_pipeline
from tests.support.model import Chunk, Model, Owed, Row, Within, agree, differing
from tests.support.model_source import CHANNELS, DAYS, EXPORTS, FILES, FIRST, Sources

TEXTS = st.sampled_from(
    ["the lift is broken", "soup today", "ship it", "who has the key?"]
    + [("a line of a long report\n" * 90) + end for end in ("", "signed, the committee")]
)
LIVE = st.sampled_from(("export", "export", "other"))
CHANNEL, DAY, PICK = st.sampled_from(CHANNELS), st.sampled_from(DAYS), st.integers(0, 99)
_ALL = Within()
_START, _SECOND, _THIRD = (FIRST[day] * 1_000_000 for day in DAYS)
SCOPES = st.sampled_from(
    [_ALL] * 4
    + [Within(team="T01"), Within(team="T02"), Within(channel="C1"), Within(kind="file"), Within(kind="message")]
    + [Within(since=_SECOND), Within(until=_SECOND), Within("T01", "C2", _SECOND, _THIRD), Within(since=_THIRD)]
)
# At which write a command dies: most do not.
DEATHS = st.tuples(st.sampled_from([0] * 8 + list(range(1, 15))), st.booleans())
VERSION = "messages__v1"


def scope_of(within: Within) -> Scope:
    return Scope(
        (within.team,) if within.team else (),
        (within.channel,) if within.channel else (),
        within.since or None,
        within.until if within.until < 1 << 60 else None,
        within.kind or None,
    )


class Machine(RuleBasedStateMachine):
    """Sources, a pipeline and the model beside them. ``counted`` says how often each rule was taken, over all machines."""

    base: Path
    counted: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        # Kept until the session ends: the first workspace of a process holds the scratch folder of its Spark.
        root = Path(tempfile.mkdtemp(dir=self.base)) / "ws"
        self.config = root / "embedmill.toml"
        self.sources = Sources(root, self._cut)
        pipeline = open_pipeline(self.config)
        self.chunker = Chunker(pipeline.model / "tokenizer.json", pipeline.limits)
        self.numbers = {source.source_id: n for n, source in enumerate(open_sources(pipeline.config))}
        key = pipeline.state.for_writing(1).hash_key
        self.model = Model(cache(lambda team, text: ids.content_hash(key, team, text)), (*EXPORTS.values(), "T01"))
        self.night: Within | None = None
        self.sound = True

    def _cut(self, doc: str, text: str) -> dict[str, str]:
        return {ids.chunk_id(doc, n): piece for n, piece in enumerate(_pieces(self.chunker, text.strip()))}

    # -- what happens to the sources -----------------------------------------------------------------------------------

    @rule(name=LIVE, channel=CHANNEL, day=DAY, texts=st.lists(TEXTS, min_size=1, max_size=3))
    def post(self, name: str, channel: str, day: str, texts: list[str]) -> None:
        self.counted["post"] += 1
        self.sources.post(name, channel, day, texts)

    @rule(name=LIVE, pick=PICK, text=TEXTS)
    def edit(self, name: str, pick: int, text: str) -> None:
        self.counted["edit"] += 1
        if said := self.sources.messages(name):
            self.sources.edit(name, said[pick % len(said)], text)

    @rule(name=LIVE, pick=PICK)
    def delete(self, name: str, pick: int) -> None:
        self.counted["delete"] += 1
        if said := self.sources.messages(name):
            self.sources.delete(name, said[pick % len(said)])

    @rule(name=LIVE, channel=CHANNEL, day=DAY)
    def drop_day(self, name: str, channel: str, day: str) -> None:
        self.counted["drop a day"] += 1
        self.sources.drop_day(name, channel, day)

    @rule(name=LIVE, channel=CHANNEL, new=st.sampled_from(("lobby", "harbour", "garden")))
    def rename(self, name: str, channel: str, new: str) -> None:
        self.counted["rename"] += 1
        self.sources.rename(name, channel, new)

    @rule(channel=CHANNEL, day=DAY, torn=st.booleans())
    def tear_or_mend(self, channel: str, day: str, torn: bool) -> None:
        self.counted["tear or mend"] += 1
        self.sources.tear(channel, day, torn)

    @rule(pick=PICK, text=TEXTS, beside=st.booleans())
    def snapshot(self, pick: int, text: str, beside: bool) -> None:
        """Life goes on after it: something is edited. It may stand ``beside`` the live export at once."""
        self.counted["snapshot"] += 1
        self.sources.snapshot()
        if said := self.sources.messages("export"):
            self.sources.edit("export", said[pick % len(said)], text)
        if beside:
            self.sources.replay(0)

    @rule(pick=st.integers(0, 3))
    def replay(self, pick: int) -> None:
        self.counted["replay a snapshot"] += 1
        self.sources.replay(pick)

    @rule(path=st.sampled_from(FILES), text=TEXTS)
    def write_file(self, path: str, text: str) -> None:
        self.counted["write a file"] += 1
        self.sources.write_file(path, text)

    @rule(path=st.sampled_from(FILES))
    def remove_file(self, path: str) -> None:
        self.counted["remove a file"] += 1
        self.sources.remove_file(path)

    @rule(old=st.sampled_from(FILES), new=st.sampled_from(FILES))
    def move_file(self, old: str, new: str) -> None:
        self.counted["move a file"] += 1
        self.sources.move_file(old, new)

    # -- commands ------------------------------------------------------------------------------------------------------

    @rule(within=SCOPES, death=DEATHS)
    def run(self, within: Within, death: tuple[int, bool]) -> None:
        self._command(
            "run", within, death, lambda pipeline: run(pipeline, scope_of(within), allow_mass_delete=True).body()
        )

    @rule(within=SCOPES, death=DEATHS)
    def extract_for_later(self, within: Within, death: tuple[int, bool]) -> None:
        """The first step of a run whose others come when they come."""
        self.night = within
        self._command("extract", within, death, self._step("extract"), publish=False)

    @precondition(lambda self: self.night is not None)
    @rule(death=DEATHS)
    def embed_later(self, death: tuple[int, bool]) -> None:
        assert self.night is not None
        self._command("embed", self.night, death, self._step("embed"), read=False, publish=False)

    @precondition(lambda self: self.night is not None)
    @rule(death=DEATHS)
    def publish_later(self, death: tuple[int, bool]) -> None:
        assert self.night is not None
        self._command("publish", self.night, death, self._step("publish"), read=False)

    def _step(self, name: Literal["extract", "embed", "publish"]) -> Callable[[Any], Body]:
        assert self.night is not None
        scope = scope_of(self.night)
        return lambda pipeline: step(pipeline, scope, StepRequest(name, "night", allow_mass_delete=True))

    @rule(death=DEATHS)
    def reindex(self, death: tuple[int, bool]) -> None:
        versions = self._versions()
        newer = [v for v in versions if not self.model.live or _number(v) > _number(self.model.live)]
        version = newer[-1] if newer else f"messages__v{max(map(_number, versions), default=0) + 1}"
        done = self._command("reindex", _ALL, death, lambda pipeline: reindex(pipeline, Scope()), version=version)
        if isinstance(done, ReindexBody):
            agree(done.gate.passed and done.activated, "a right version was refused", done.gate)
            agree(self.model.live == version, "the alias has not moved")

    @precondition(lambda self: self.model.live and self.model.live != self._versions()[0])
    @rule(death=DEATHS)
    def rollback(self, death: tuple[int, bool]) -> None:
        versions = self._versions()
        before = versions[versions.index(self.model.live) - 1]
        if self._command("rollback", _ALL, death, rollback, read=False, publish=False, version=before):
            agree(self.model.live == before, "the alias has not moved back")
            known = self.model.known
            shown = {k: row.text for k, row in self.model.index[before].items()}
            agree(all(k in known and known[k].row.text == shown[k] for k in shown), "a text that is gone is shown")

    @precondition(lambda self: len(self._versions()) > 3)
    @rule()
    def collect(self) -> None:
        self.counted["gc"] += 1
        kept = versions_to_keep(self._versions(), self._versions(), self.model.live or None, 2)
        self._command("gc", _ALL, (0, True), gc, read=False, publish=False)
        agree(self._versions() == kept, "other versions were dropped than may be")

    @rule(team=st.sampled_from(("T01", "T01", "T02")), which=st.integers(0, 5), pick=PICK, death=DEATHS)
    def purge(self, team: str, which: int, pick: int, death: tuple[int, bool]) -> None:
        documents = sorted({c.doc for c in self.model.known.values() if c.row.team == team})
        ids_, channel, before = [], "", None
        if which == 0 and not self.model.quarantine:  # a purge would remove a torn day from there
            channel = CHANNELS[pick % 2]
        elif which == 1:
            before = _SECOND
        elif documents:
            ids_ = [documents[pick % len(documents)], documents[pick // 2 % len(documents)]]
        else:
            return
        self._command(
            "purge",
            _ALL,
            death,
            lambda pipeline: purge(pipeline, team=team, channel=channel, ids=ids_, before=before),
            read=False,
            publish=False,
        )

    def teardown(self) -> None:
        if self.sound:
            self._command(
                "run", _ALL, (0, True), lambda pipeline: run(pipeline, Scope(), allow_mass_delete=True).body()
            )

    # -- judging -------------------------------------------------------------------------------------------------------

    def _command(
        self,
        name: str,
        within: Within,
        death: tuple[int, bool],
        command: Callable[[Any], Body],
        *,
        read: bool = True,
        publish: bool = True,
        version: str = "",
    ) -> Body | None:
        """Let the model say what a command owes, do it, and judge what it wrote; its report, or None if it died."""
        model, fatal, self.sound = self.model, Death(*death), False
        goal = copy.deepcopy(model)
        goal.recover()
        if name != "purge":
            for unfinished in goal.unfinished:
                goal.carry_out(unfinished)
        if read:
            goal.known, goal.quarantine = goal.read(self.sources.now(), within)
        version = version or model.live or VERSION
        owed = goal.owed(version, within) if publish or name == "embed" else Owed(version, {}, set(), set())
        if name == "rollback":
            owed = Owed(version, {}, goal.outdated(version), set())
        left = list(model.unfinished)
        body = None
        try:
            body = command(open_pipeline(self.config, fatal))
        except Killed:
            name += " that died"
        self.counted[name] += 1
        # A version that goes takes its ledger with it.
        writes = [write for write in fatal.writes if name != "gc" or write.purging or write.where == "doubt"]
        model.follow(writes, goal, owed, died=body is None)
        if body is not None:
            if name == "purge":
                for unfinished in model.unfinished[len(left) :]:
                    goal.rules.append(unfinished)
                    goal.carry_out(unfinished)
            if name == "gc":
                for rows in (model.index, model.ledger):
                    for gone in rows.keys() - set(self._versions()):
                        del rows[gone]
            model.reached(goal, within, published=version if publish else "", left=left if name == "purge" else ())
            if isinstance(body, RunReport):
                agree((body.status == "partial") == model.counted(within) or body.status == "running", "status")
            if isinstance(body, RunReport) and name in ("run", "reindex"):
                agree(body.chunks.embedded == len(owed.texts), "texts encoded", body.chunks, owed.texts)
                agree(body.index_rows.after == len(model.index[version]), "rows after")
        self._compare()
        self.sound = True
        return body

    def _versions(self) -> list[str]:
        return open_pipeline(self.config).index().versions()

    def _compare(self) -> None:
        """Every table and version, key by key, with the model."""
        pipeline = open_pipeline(self.config)
        index, state, model = pipeline.index(), pipeline.state, self.model
        assert isinstance(index, WatchedIndex)
        agree((index.live() or "") == model.live, "alias", index.live(), model.live)
        for version in index.versions():
            held = index._store.versions[version]
            rows = {k: _row(r) for k, r in held.rows.items()}
            wanted = model.index.get(version, {})
            agree(rows == wanted, "the index is not as the writes were", version, differing(rows, wanted))
            if rows:
                keys = sorted(rows)
                vectors = HashEncoder().encode([rows[k].text for k in keys], np.empty(0, np.int64))
                agree(np.allclose(np.stack([held.vectors[k] for k in keys]), vectors, atol=1e-6), "vectors")
        listed = state.read("chunks").to_pylist()
        known = {
            r["chunk_id"]: Chunk(_row(r), r["doc_id"], (self.numbers[r["source_id"]], r["partition"])) for r in listed
        }
        agree(len(known) == len(listed), "a chunk is there twice")
        agree(known == model.known, "texts", differing(known, model.known))
        stored = [
            (r["team_id"], r["content_hash"]) for r in state.read("vectors", ["team_id", "content_hash"]).to_pylist()
        ]
        agree(len(set(stored)) == len(stored), "a vector is stored twice")
        agree(set(stored) == model.stored, "vectors stored", set(stored) ^ model.stored)
        ledger = state.read("published", ["index", "chunk_id", "team_id", "content_hash"]).to_pylist()
        found = {(r["index"], r["chunk_id"]): r["content_hash"] for r in ledger}
        agree(len(found) == len(ledger), "a row is in the ledger twice")
        believed = {
            (version, k): row and model.hash_of(row.team, row.text)
            for version, rows_ in model.ledger.items()
            for k, row in rows_.items()
        }
        agree(found == {k: h or "" for k, h in believed.items()}, "ledger", differing(found, believed))


def _number(version: str) -> int:
    return version_number("messages", version) or 0


def _row(r: dict[str, Any]) -> Row:
    return Row(r["team_id"], r["channel_id"], r["channel_name"], r["kind"], r["created_at"], r["version"], r["text"])


_CUTS: dict[str, list[str]] = {}


def _pieces(chunker: Chunker, text: str) -> list[str]:
    if text not in _CUTS:
        _CUTS[text] = [text[s.start : s.end] for s in chunker.split_batch([text])[0]]
    return _CUTS[text]
