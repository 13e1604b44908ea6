"""How an encoder is chosen by the name of its backend, through the fidelity gate, and opened."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from embedding.atomic_file import replace_file
from embedding.encoders.backends import AUTO, BACKENDS, check_backend
from embedding.encoders.base import Encoder
from embedding.encoders.fidelity import PROBES_VERSION, Fidelity, refuse
from embedding.encoders.reference import Reference
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError, EmbedmillError, EncoderError, FidelityError
from embedding.models.space import short_hash

log = logging.getLogger(__name__)


def open_encoder(spec: EncoderSpec) -> Encoder:
    """Load the encoder that ``choose`` finds for a spec."""
    return _load(choose(spec))


def choose(spec: EncoderSpec) -> EncoderSpec:
    """Choose backend and precision: the fastest that is here and whose vectors are the model's.

    The first use on a machine converts the model and encodes the gate's probes, which takes up to a minute; the
    verdict is kept in ``spec.cache``. Endpoints of a managed model are proven to be of one space.

    Raises ConfigError for a backend that is not installed or not known, SpaceMismatchError and EncoderError where an
    endpoint is of another space or nothing proves that it is not, FidelityError where the gate refuses every
    precision of it.
    """
    spec.fetch()
    backend = check_backend(spec.backend)
    if spec.remote is not None and spec.remote.fallbacks:
        return _with_probes(spec)
    if spec.precision or backend is not None and backend.precisions is None:
        return spec  # a service or a package is the only source of its own space: there is nothing to compare it with
    if backend is not None and backend.needs and find_spec(backend.needs) is None:
        raise ConfigError(
            f'model.backend: "{spec.backend}" is not installed; run `pip install {backend.needs}`, or use "torch"'
        )
    _make_cache(spec)
    reference = Reference(spec)
    # Several actors of one machine begin at once; one of them does the work and the others find it done.
    with FileLock(spec.cache / "lock"):
        if not (own := _own_verdict(spec, reference)).passed:
            raise FidelityError(
                f"model.name: {spec.model.name} has a part that this version does not know, or lacks weights: its "
                f"vectors here are not those that sentence-transformers gives ({own})"
            )
        refused = None
        for candidate in _candidates(spec):
            if (refused := _refusal(candidate, reference)) is None:
                return candidate
            log.info("%s", refused)
    raise refused or ConfigError(f"model.backend: {spec.backend!r} cannot run on this machine")


def _with_probes(spec: EncoderSpec) -> EncoderSpec:
    """A spec with what its endpoints are proven by. What will encode documents has those that answer proven now."""
    from embedding.encoders.remote import same_space
    from embedding.encoders.remote.encoder import RemoteEncoder

    if spec.probes or spec.remote is None:
        return spec
    alone = replace(spec, remote=replace(spec.remote, fallbacks=()), seconds=None)
    spec = replace(spec, probes=same_space.reference(spec, lambda: _load(alone)))
    if spec.purpose == "document":
        queries = replace(spec, purpose="query")
        with suppress(EncoderError):  # kept now, so that a search later needs no first endpoint either
            same_space.reference(queries, lambda: _load(replace(alone, purpose="query")))
        encoder = _load(spec)
        assert isinstance(encoder, RemoteEncoder)
        try:
            encoder.prove()
        finally:
            encoder.close()
    return spec


def _make_cache(spec: EncoderSpec) -> None:
    try:
        spec.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"model.cache: cannot use {spec.cache.parent}: {error.strerror}; set it to a folder that can be written"
        ) from None


def _refusal(candidate: EncoderSpec, reference: Reference) -> FidelityError | None:
    """Why a candidate cannot serve; None where its vectors are the model's."""
    try:
        fidelity = _verdict(candidate, reference)
    except EmbedmillError:
        raise
    except Exception as error:  # there are architectures that a converter cannot take
        return FidelityError(f"model.backend: {candidate.backend} cannot run it ({type(error).__name__})")
    if fidelity is None or fidelity.passed:
        return None
    return refuse(f"{candidate.backend} {candidate.precision}", fidelity)


def _candidates(spec: EncoderSpec) -> Iterator[EncoderSpec]:
    """What may serve a spec, the fastest first. A backend is imported only when its turn comes: torch takes seconds."""
    backends = [spec.backend]
    if spec.backend == AUTO:
        backends = ["torch"] if has_gpu() or find_spec("openvino") is None else ["openvino", "torch"]
    for backend in backends:
        precisions = BACKENDS[backend].precisions
        for precision in precisions() if precisions else ():
            yield replace(spec, backend=backend, precision=precision)


def has_gpu() -> bool:
    """Whether this process may use a GPU, found out without importing torch."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(Path("/dev").glob("nvidia[0-9]*"))


def _own_verdict(spec: EncoderSpec, reference: Reference) -> Fidelity:
    """How near our vectors in float32 are to sentence-transformers' own, which reads more of a folder than we do."""
    parts = [version(name) for name in ("sentence-transformers", "transformers", "tokenizers", "torch")]
    ours = replace(spec, backend="torch", precision="f32")
    file = spec.cache / f"own-{short_hash([*parts, spec.max_tokens, PROBES_VERSION, *reference.key])}.json"
    return _kept(file, lambda: _measured(ours, reference))


def _verdict(spec: EncoderSpec, reference: Reference) -> Fidelity | None:
    """What the gate says of a candidate, from the cache or by measuring; None for torch in f32, which has its own."""
    if (spec.backend, spec.precision) == ("torch", "f32"):
        return None
    parts = (spec.backend, spec.precision, version(spec.backend), version("torch"), PROBES_VERSION, processor())
    file = spec.cache / f"gate-{short_hash([*parts, *reference.key])}.json"
    return _kept(file, lambda: _measured(spec, reference))


def _measured(spec: EncoderSpec, reference: Reference) -> Fidelity:
    """Documents, and queries where they have another prompt. The reference comes first: it is let go before."""
    for purpose in reference.purposes:
        reference.vectors(purpose)
    return reference.compare(lambda purpose: _load(replace(spec, purpose=purpose)))


def _kept(file: Path, measured: Callable[[], Fidelity]) -> Fidelity:
    """A verdict from its file, or measured and written there. Several processes may do so at once."""
    if file.is_file():
        return Fidelity(**json.loads(file.read_text()))
    fidelity = measured()
    replace_file(file, json.dumps(asdict(fidelity)).encode(), durable=False)
    return fidelity


def processor() -> str:
    """Names of the CPU and the GPUs. A verdict holds for them alone: others compute bf16 in another way, or not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    gpus = sorted(p.name for p in Path("/proc/driver/nvidia/gpus").glob("*"))
    name = next((line for line in lines if line.startswith("model name")), "").partition(":")[2].strip()
    return " ".join([name or platform.machine(), *gpus])


def _load(spec: EncoderSpec) -> Encoder:
    backend = check_backend(spec.backend)
    assert backend is not None, "auto is chosen by now"
    return backend.open(spec)
