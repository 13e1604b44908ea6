"""What a [model.remote] must hold beside the types of its keys."""

from __future__ import annotations

import re

from embedding.encoders.backends import BACKENDS, is_remote
from embedding.encoders.spec import Batch, RemoteSettings

_PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[A-Za-z0-9._=-]+)+")
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::[0-9]{12}:role/\S+")
BATCH_MODEL = "amazon.titan-embed-text-v2"


def check_remote(backend: str, remote: RemoteSettings) -> None:
    """Raise ValueError, with the key, for what cannot work together."""
    _check_url("remote.url", backend, remote.url)
    for number, fallback in enumerate(remote.fallbacks):
        key = f"remote.fallbacks[{number}]"
        if not is_remote(fallback.backend):
            services = ", ".join(name for name, one in BACKENDS.items() if one.remote)
            raise ValueError(f"{key}.backend: {fallback.backend!r} is not one of {services}")
        _check_url(f"{key}.url", fallback.backend, fallback.url)
    if remote.hedge and not remote.fallbacks:
        raise ValueError("remote.hedge: a second request goes to another endpoint; give remote.fallbacks, or 0")
    if remote.batch is not None:
        _check_batch(backend, remote, remote.batch)


def _check_url(key: str, backend: str, url: str) -> None:
    if backend == "http" and "://" not in url:
        raise ValueError(f"{key}: give the server's address, http(s)://host")


def _check_batch(backend: str, remote: RemoteSettings, batch: Batch) -> None:
    if backend != "bedrock" or BATCH_MODEL not in remote.model:
        raise ValueError(f"remote.batch: is for backend bedrock and {BATCH_MODEL}; remove it")
    if not _PLACE.fullmatch(batch.uri):
        raise ValueError("remote.batch.uri: give s3://bucket/prefix, without credentials")
    if not _ROLE.fullmatch(batch.role_arn):
        raise ValueError("remote.batch.role_arn: give the role of Bedrock, arn:aws:iam::ACCOUNT:role/NAME")
