"""A process that encodes beside this one, for what one actor of Ray would encode before Ray had paid for its start.

It runs what the workers of Ray run, the attempt log among it. A text may kill it as it may kill an actor: another one
goes on, finds in the log at which texts the one before died, and leaves the text out that is to blame.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Queue
from threading import Thread
from typing import Any, TypeAlias

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
_AHEAD = 2  # shards that it is asked for at once: one is encoded, and the next one read and cut


@dataclass(frozen=True, slots=True)
class ShardRequest:
    """The shard of this name of ``texts`` to encode, where attempt logs are, and where the vectors go."""

    name: str
    texts: Staged
    attempts: StatePath
    root: StatePath
    space_id: str
    run_id: str


_Cut: TypeAlias = tuple[ShardRequest, Future[pa.Table]]


class EncoderProcess:
    """The process, as this one sees it. It begins to load the encoder at once, and dies with this process.

    Without ``gpus`` it sees none.
    """

    def __init__(self, spec: EncoderSpec, *, gpus: bool = True) -> None:
        self._spec, self.told = spec, spec.told
        self._environment = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        self._begin()

    def _begin(self) -> None:
        self._process, self._pipe = start_serving(__name__, environment=self._environment)
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

    def encode(self, asked: Sequence[ShardRequest]) -> Generator[Mapping[str, Any]]:
        """Have shards encoded and their vectors written: a row of ``write_shard`` for each, in this order.

        Leaving the loop early ends the process. Raises what the process raised where the encoder cannot be opened,
        ResourceError where it does not start, and EmbedmillError where it ends time and again and no text is to blame.
        """
        done = sent = idle = 0
        ahead = _AHEAD
        try:
            while done < len(asked):
                log = asked[done].attempts / asked[done].name
                noted = len(entries(log))
                try:
                    self._greet()
                    while sent < min(len(asked), done + ahead):
                        self._pipe.send(asked[sent])
                        sent += 1
                    row: Mapping[str, Any] = self._pipe.recv()
                except (EOFError, ConnectionError):
                    self._count_idle(idle := 0 if len(entries(log)) > noted else idle + 1)
                    # From now on one shard at a time: whatever kills it is then about the shard whose log it is.
                    sent, ahead = done, 1
                    continue
                done, idle = done + 1, 0
                yield row
        finally:
            if sent > done:
                self.close()  # else it would answer the next caller with what this one asked for

    def _greet(self) -> None:
        """Wait until it has opened its encoder; begin another one where it was ended."""
        if self._pipe.closed:
            self._begin()
        if not self._greeted:
            if fault := self._pipe.recv():
                raise fault_from_bytes(fault)
            self._greeted = True

    def _count_idle(self, idle: int) -> None:
        """End one that died; raise where so many did in a row that had noted no text to blame.

        What it noted is a text found to be deadly, or the search for it: of these there is an end.
        """
        greeted, code = self._greeted, self.close()
        if idle >= _TRIES:
            what = "ended" if greeted else "did not start"
            kind = EmbedmillError if greeted else ResourceError
            raise kind(f"the process that encodes {what} {_TRIES} times (exit code {code}); run again")


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
        coming: Queue[_Cut] = Queue(maxsize=1)
        Thread(target=_cut_ahead, args=(pipe, spec, coming), daemon=True).start()
        while True:
            pipe.send(_encoded(encode, *coming.get()))


def _cut_ahead(pipe: Connection, spec: EncoderSpec, coming: Queue[_Cut]) -> None:
    """Read and cut the shard that is asked for next while one is encoded.

    Ends the process with the one that asks, whatever it is busy with: a service would be paid for what nobody takes.
    """
    try:
        while True:
            asked: ShardRequest = pipe.recv()
            cut: Future[pa.Table] = Future()
            try:
                cut.set_result(cut_shard(pa.table({"shard": [asked.name]}), asked.texts, spec))
            except BaseException as error:  # raised where the shard is encoded; a panic in Rust is no Exception
                cut.set_exception(error)
            coming.put((asked, cut))
    finally:
        os._exit(1)


def _encoded(encode: EncodeShard, asked: ShardRequest, cut: Future[pa.Table]) -> Mapping[str, Any]:
    try:
        encoded = encode(cut.result(), asked.attempts)
        [row] = write_shard(encoded, asked.root, asked.space_id, asked.run_id).to_pylist()
    except EmbedmillError as error:
        row = {"fault": fault_to_bytes(error)}
    except OSError as error:  # of a disk or a store: no text is to blame
        what = f"a shard was not read or written ({type(error).__name__}: {error.strerror or 'no reason'})"
        row = {"fault": fault_to_bytes(ResourceError(what))}
    found: Mapping[str, Any] = row
    return found
