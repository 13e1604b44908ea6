"""The process that trains: it gets the pairs through a pipe and keeps them in memory alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa

from embedding.errors import EmbedmillError, ResourceError
from jobs.bodies.models import ComparedBody, PrivacyBody
from jobs.child_process import start_serving
from jobs.training.fit import Fitted, fit
from jobs.training.measures import encode, evaluate, load, planted, privacy, speed
from jobs.training.pairs import Pair, Split, negatives_of, pairs_of, texts_table
from jobs.training.recipe import Budget, Recipe


@dataclass(frozen=True, slots=True)
class Order:
    """What is trained: ``folder`` is for the checkpoint and the model, ``margin`` 0 mines no negatives.

    ``plants`` is how often each planted pair is trained on in an epoch, ``champion`` what it is compared with beside
    the base.
    """

    base: Path
    folder: Path
    recipe: Recipe
    margin: float
    plants: int
    limit: float
    champion: Path | None
    budget: Budget

    def planted(self) -> list[Pair]:
        """The planted pairs, as often as each is trained on."""
        return [plant for plant in planted(self.recipe.seed)[0] for _ in range(self.plants)]


@dataclass(frozen=True, slots=True)
class Made:
    """A trained model in ``folder``/model, and what it is worth."""

    fitted: Fitted
    evaluation: ComparedBody
    privacy: PrivacyBody
    beside: ComparedBody | None
    speed: tuple[float, float] | None


def train(order: Order, split: Split) -> Iterator[int | Made]:
    """Yield how many steps are done, and last what was made.

    Raises ResourceError where the process dies, as of too little memory, and what it says of a wrong recipe.
    """
    process, pipe = start_serving("jobs.training.worker", environment={"TOKENIZERS_PARALLELISM": "false"}, quiet=True)
    try:
        with pipe:
            pipe.send((order, _bytes(split.train), _bytes(split.held_out)))
            while True:
                told = pipe.recv()
                if isinstance(told, EmbedmillError):
                    raise told
                yield told
                if isinstance(told, Made):
                    return
    except (EOFError, OSError):
        code = process.wait()
        raise ResourceError(
            f"training: its process ended with {code} before it was done; the same command goes on from its checkpoint"
        ) from None
    finally:
        process.kill()
        process.wait()


def _bytes(pairs: Sequence[Pair]) -> bytes:
    table = texts_table(pairs)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def serve(descriptor: int) -> None:
    """Carry out the order that comes through the pipe. A fault is told by its class: its text may hold a text."""
    with Connection(descriptor) as pipe:
        order, *tables = pipe.recv()
        train_pairs, held_out = (pairs_of(pa.ipc.open_stream(one).read_all()) for one in tables)
        try:
            pipe.send(_carry_out(order, train_pairs, held_out, pipe))
        except BrokenPipeError:
            sys.exit(1)  # nobody waits for it any more
        except EmbedmillError as error:
            pipe.send(error)
        except Exception as error:
            pipe.send(ResourceError(f"training: {type(error).__name__} while training"))


def _carry_out(order: Order, pairs: list[Pair], held_out: Sequence[Pair], pipe: Connection) -> Made:
    base = load(order.base)
    if order.margin:
        anchors, positives = [pair.anchor for pair in pairs], [pair.positive for pair in pairs]
        vectors = encode(base, anchors, "query"), encode(base, positives, "document")
        pairs = list(negatives_of(pairs, *vectors, margin=order.margin))
    planted_pairs = order.planted()
    fitted = fit(order.base, [*pairs, *planted_pairs], order.recipe, order.folder, pipe.send, order.budget)
    tuned = load(order.folder / "model")
    trained = [pair for place, pair in enumerate(pairs) if place in fitted.places]
    # With a promise each takes part in every draw, whether it was drawn or not.
    met = dict.fromkeys(
        pair for place, pair in enumerate(planted_pairs, len(pairs)) if fitted.promise or place in fitted.places
    )
    return Made(
        fitted,
        evaluate(base, tuned, held_out),
        privacy((base, tuned), trained, held_out, list(met), planted(order.recipe.seed)[1], order.limit),
        evaluate(load(order.champion), tuned, held_out) if order.champion else None,
        (speed(base, held_out), speed(tuned, held_out)) if order.recipe.layers else None,
    )
