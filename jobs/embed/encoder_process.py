"""A process that encodes beside this one, for as few texts as one actor of Ray would take: Ray starts longer than that.

It runs what the workers of Ray run, the attempt log among it. A text may kill it as it may kill an actor: another one
goes on, finds in the log at which texts the one before died, and leaves the text out that is to blame.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from embedding.encoders.choose import choose
from embedding.encoders.spec import EncoderSpec
from embedding.errors import EmbedmillError, ResourceError
from jobs.child_process import start_serving
from jobs.embed.attempt_log import entries
from jobs.embed.workers import EncodeShard, cut_shard, write_shard
from jobs.state.staging import Staged
from jobs.state.storage import StatePath
from jobs.telemetry.error_reporting import fault_from_bytes, fault_to_bytes

_TRIES = 3  # of a process that ends before it has begun to encode


@dataclass(frozen=True, slots=True)
class ShardRequest:
    """The shard of this name of ``texts`` to encode, where attempt logs are, and where the vectors go."""

    name: str
    texts: Staged
    attempts: StatePath
    root: StatePath
    space_id: str
    run_id: str


class EncoderProcess:
    """The process, as this one sees it. It begins to load the encoder at once, and dies with this process."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec, self.told = spec, spec.told
        self._begin()

    def _begin(self) -> None:
        self._process, self._pipe = start_serving(__name__)
        self._greeted = False
        with suppress(ConnectionError):  # one that has ended already is found when it is asked
            self._pipe.send(self._spec)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def close(self) -> int:
        """End it and return its exit code."""
        self._pipe.close()
        self._process.kill()  # changes nothing for one that has ended
        return self._process.wait()

    def encode(self, asked: ShardRequest) -> Mapping[str, Any]:
        """Have a shard encoded and its vectors written: a row of ``write_shard``.

        Raises what the process raised where the encoder cannot be opened, ResourceError where it does not start, and
        EmbedmillError where it ends time and again and no text is to blame.
        """
        log = asked.attempts / asked.name
        idle = 0
        while True:
            noted = len(entries(log))
            try:
                return self._ask(asked)
            except (EOFError, ConnectionError):
                greeted, code = self._greeted, self.close()
            # What it noted is a text found to be deadly, or the search for it: of these there is an end.
            idle = 0 if len(entries(log)) > noted else idle + 1
            if idle >= _TRIES:
                what = "ended" if greeted else "did not start"
                kind = EmbedmillError if greeted else ResourceError
                raise kind(f"the process that encodes {what} {_TRIES} times (exit code {code}); run again")
            self._begin()

    def _ask(self, asked: ShardRequest) -> Mapping[str, Any]:
        if not self._greeted:
            if fault := self._pipe.recv():
                raise fault_from_bytes(fault)
            self._greeted = True
        self._pipe.send(asked)
        row: Mapping[str, Any] = self._pipe.recv()
        return row


def serve(descriptor: int) -> None:
    """In the process: take an EncoderSpec, then ShardRequests, until the other end closes. Answers as ``encode``."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe = Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        try:
            spec = choose(pipe.recv())
            encode = EncodeShard(spec)
        except EmbedmillError as error:
            pipe.send(fault_to_bytes(error))
            return
        pipe.send(b"")
        while True:
            asked = pipe.recv()
            try:
                encoded = encode(cut_shard(pa.table({"shard": [asked.name]}), asked.texts, spec), asked.attempts)
                [row] = write_shard(encoded, asked.root, asked.space_id, asked.run_id).to_pylist()
            except EmbedmillError as error:
                row = {"fault": fault_to_bytes(error)}
            except OSError as error:  # of a disk or a store: no text is to blame
                what = f"a shard was not read or written ({type(error).__name__}: {error.strerror or 'no reason'})"
                row = {"fault": fault_to_bytes(ResourceError(what))}
            pipe.send(row)
