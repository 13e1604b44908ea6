"""What a [model.remote] must hold beside the types of its keys."""

from __future__ import annotations

import re

from embedding.encoders.backends import BACKENDS, is_remote
from embedding.encoders.spec import Batch, Endpoint, RemoteSettings
from jobs.config_fields import check_no_credentials, check_web_address

_PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[A-Za-z0-9._=-]+)+")
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::[0-9]{12}:role/\S+")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)?")  # "" sends no key
_OF_THE_WEB = ("http", "bedrock", "sagemaker")  # an extension's backend has addresses of its own
BATCH_MODEL = "amazon.titan-embed-text-v2"


def check_remote(backend: str, remote: RemoteSettings) -> None:
    """Raise ValueError, with the key, for what cannot work together."""
    _check_endpoint("remote", backend, remote)
    for number, fallback in enumerate(remote.fallbacks):
        key = f"remote.fallbacks[{number}]"
        if not is_remote(fallback.backend):
            services = ", ".join(name for name, one in BACKENDS.items() if one.remote)
            raise ValueError(f"{key}.backend: {fallback.backend!r} is not one of {services}")
        _check_endpoint(key, fallback.backend, fallback)
    if remote.hedge and not remote.fallbacks:
        raise ValueError("remote.hedge: a second request goes to another endpoint; give remote.fallbacks, or 0")
    if remote.batch is not None:
        _check_batch(backend, remote, remote.batch)


def _check_endpoint(key: str, backend: str, endpoint: Endpoint) -> None:
    """Neither message has the value: it may be a key."""
    if not _VARIABLE.fullmatch(endpoint.api_key_env):
        raise ValueError(f"{key}.api_key_env: give the name of an environment variable that holds the key")
    if backend not in _OF_THE_WEB or (backend != "http" and not endpoint.url):
        return
    try:
        check_web_address(endpoint.url)
    except ValueError:
        raise ValueError(f"{key}.url: give the server's address, http(s)://host") from None
    way = "api_key_env names the variable with the key" if backend == "http" else "credentials come by AWS's own chain"
    try:
        check_no_credentials(endpoint.url, way)
    except ValueError as error:
        raise ValueError(f"{key}.url: {error}") from None


def _check_batch(backend: str, remote: RemoteSettings, batch: Batch) -> None:
    if backend != "bedrock" or BATCH_MODEL not in remote.model:
        raise ValueError(f"remote.batch: is for backend bedrock and {BATCH_MODEL}; remove it")
    if not _PLACE.fullmatch(batch.uri):
        raise ValueError("remote.batch.uri: give s3://bucket/prefix, without credentials")
    if not _ROLE.fullmatch(batch.role_arn):
        raise ValueError("remote.batch.role_arn: give the role of Bedrock, arn:aws:iam::ACCOUNT:role/NAME")
