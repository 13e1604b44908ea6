"""Proof that an endpoint gives vectors of the space, before one of them is used.

Fixed texts of ours are encoded by it and compared, by the fidelity gate's bounds, with what the first endpoint gave,
which names the space. That is kept in the cache of the model, so that the first may be down when another is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedding.atomic_file import replace_file
from embedding.encoders.base import Encoder
from embedding.encoders.fidelity import PROBES_VERSION, compare, probes
from embedding.encoders.remote.endpoint import Endpoint
from embedding.encoders.remote.service import RefusedInput, TryAgain
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError, EncoderError, SpaceMismatchError
from embedding.models.space import short_hash

PROBES = 18  # the first of the gate's: one sentence each, short enough for every model


def texts() -> list[str]:
    """What is compared."""
    return probes()[:PROBES]


def _lengths() -> npt.NDArray[np.intp]:
    return np.array([len(text) // 2 for text in texts()])  # more tokens than most have: requests get smaller, no worse


def reference(spec: EncoderSpec, open_first: Callable[[], Encoder]) -> bytes:
    """The first endpoint's vectors of the probes (float32), kept or asked for now.

    Raises EncoderError where there are none and it does not answer, ConfigError where the cache cannot be written.
    """
    assert spec.remote is not None
    key = [spec.backend, spec.remote.model, spec.dim, spec.remote.normalise, spec.purpose, PROBES_VERSION]
    file = spec.cache / f"endpoint-probes-{short_hash(key)}.npy"
    if not file.is_file():
        first = open_first()
        try:
            vectors = first.encode(texts(), _lengths())
        except EncoderError as error:
            raise EncoderError(
                f"model.remote.fallbacks: the first endpoint gives no vectors ({error}), and none are kept in "
                f"{spec.cache}, so nothing proves that another is of its space; run once while it answers"
            ) from None
        finally:
            first.close()
        if not np.isfinite(vectors).all():
            raise ConfigError(f"model.remote: {first.name} refuses plain texts; see dim, url and model")
        sink = io.BytesIO()
        np.save(sink, vectors, allow_pickle=False)
        try:
            spec.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(file, sink.getvalue(), durable=False)
        except OSError as error:
            raise ConfigError(f"model.cache: cannot write to {spec.cache}: {error.strerror}") from None
    found: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
    return found.tobytes()


def prove(endpoint: Endpoint, expected: bytes) -> None:
    """Let an endpoint be used. Asks it once for the life of the encoder.

    Raises SpaceMismatchError where it gives other vectors, TryAgain where it does not answer, and ConfigError.
    """
    before = endpoint.unproven
    with endpoint.proving:
        if endpoint.proven:
            return
        if endpoint.unproven > before:  # another thread has just waited for it in vain
            raise TryAgain("it does not answer the probes", full=True)  # and is no second failure
        try:
            found = endpoint.ask(texts(), _lengths())
        except TryAgain:
            endpoint.unproven += 1
            raise
        except RefusedInput:
            raise ConfigError(f"{_key(endpoint)}: {endpoint.name} refuses plain texts; see url and model") from None
        fidelity = compare(found, np.frombuffer(expected, np.float32).reshape(found.shape))
        if not fidelity.passed:
            raise SpaceMismatchError(
                f"{_key(endpoint)}: endpoint {endpoint.name} gives vectors of another space than the first endpoint "
                f"gave ({fidelity}); none was used: correct or remove it"
            )
        endpoint.proven = True


def _key(endpoint: Endpoint) -> str:
    return f"model.remote.fallbacks[{endpoint.number - 1}]" if endpoint.number else "model.remote"
