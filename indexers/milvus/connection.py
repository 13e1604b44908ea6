"""A connection to Milvus: how it is reached, how long a call is tried, and what is said of a failure."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import ErrorCode, MilvusException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from embedding.errors import ConfigError, ResourceError
from indexers.base import Settings
from indexers.milvus.compat import CONNECT_FAILED, call_context, handler_of
from indexers.milvus.lite import close_lite, open_lite

CONNECT_SECONDS = 10.0
# For all attempts together. Without a limit pymilvus tries a lost connection 75 times, for more than three minutes.
CALL_SECONDS = 60.0
# Load, flush and compact work on the whole collection, and a write waits where the server is busy with that.
SLOW_CALL_SECONDS = 900.0

_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.RATE_LIMIT,
    CONNECT_FAILED,
}

_NO_ALIAS = (1600, 100)  # a server's code for it, and Milvus Lite's
# A part of the server does not reach another one: it was started a moment ago, or a part is started again.
_INSIDE = "internal/util/grpcclient"

T = TypeVar("T")


class Connection:
    """One client. ``lite`` is Milvus Lite's directory, None for a server; ``shown`` the address without secrets."""

    def __init__(self, uri: str, settings: Settings, lock_timeout: float) -> None:
        # Failures are raised, and pymilvus would log the same, with the request in it, to standard error.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
        self.lite: Path | None = None if re.match(r"https?://", uri) else Path(os.path.abspath(uri))
        self.shown = re.sub(r"//[^/@]*@", "//", uri)
        self._token = settings.token
        self._client: MilvusClient | None = None
        options = _options(settings, uri)
        if self.lite is not None:
            uri = open_lite(self.lite, lock_timeout)
        try:
            # pymilvus would share a channel among all of an address and token, never close it, and so ignore the TLS
            # settings of the second.
            self._client = self.call(MilvusClient, uri=uri, dedicated=True, **options, seconds=CONNECT_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def client(self) -> MilvusClient:
        """The client; ValueError after ``close``."""
        if self._client is None:
            raise ValueError("this index is closed")
        return self._client

    def call(
        self, function: Callable[..., T], *args: Any, seconds: float | None = None, quotes: bool = False, **options: Any
    ) -> T:
        """Call the client, again while the server is busy or away; what fails for good is one line without tokens.

        pymilvus itself tries a server's rate limit again, but neither a limit that gRPC or a proxy sets, nor a server
        that is away for longer than a moment, nor what a server says will pass.

        ``quotes`` is for calls that carry a text: what an engine says of their failure may quote it, and is left out.

        Raises ResourceError.
        """
        seconds = CALL_SECONDS if seconds is None else seconds
        retrying = Retrying(
            retry=retry_if_exception(passing),
            stop=stop_after_delay(seconds),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        try:
            return retrying(function, *args, timeout=seconds, **options)
        except (MilvusException, grpc.RpcError) as error:
            text = error.message if isinstance(error, MilvusException) else str(error.code())
            text = " ".join(str(text).split())
            if quotes and isinstance(error, MilvusException):
                told = re.search("No space left on device", text)
                text = f"{told[0] if told else 'refused'} (code {error.code})"
            if self._token:
                text = text.replace(self._token, "***")
            raise ResourceError(f"Milvus at {self.shown}: {text[:300]}") from None

    def target_of(self, alias: str) -> str | None:
        """The collection that an alias points at, None for one that is not there.

        In one call: who looks at one collection after the other may miss an alias that is being moved.
        """

        def ask(timeout: float) -> str | None:
            try:
                return str(self.client.describe_alias(alias, timeout=timeout)["collection_name"])
            except MilvusException as error:
                if error.code in _NO_ALIAS:
                    return None
                raise

        return self.call(ask)

    def send(self, version: str, *, insert: Any = None, upsert: Any = None) -> None:
        """Send a request that is encoded already. MilvusClient takes none, what it calls itself does.

        A server that is busy may take minutes for it, while one that is away is given up as in any call.
        """
        handler: Any = handler_of(self.client)
        options = {"context": call_context(self.client), "schema": {"fields": []}, "retry_times": 0}

        def ask(timeout: float) -> None:
            # As a named argument pymilvus would try a server that is away for as long.
            if insert is not None:
                handler.batch_insert(version, [], None, SLOW_CALL_SECONDS, insert_param=insert, **options)
            else:
                handler.upsert(version, [], None, SLOW_CALL_SECONDS, upsert_param=upsert, **options)

        self.call(ask, quotes=True)

    def close(self) -> None:
        """Let go of the server, or of the directory and its lock."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.lite is not None:
            close_lite(self.lite)
            self.lite = None


def passing(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, MilvusException):
        return bool(error.retriable) or error.code in _PASSING or _INSIDE in str(error.message)
    if isinstance(error, grpc.RpcError):
        too_large = "larger than max" in str(error.details())
        return error.code() in _PASSING and not too_large
    return False


def _options(settings: Settings, uri: str) -> dict[str, Any]:
    """What the client is given beside the uri. ConfigError for settings that the uri has no use for."""
    encrypted = {
        "tls_ca": settings.tls_ca,
        "tls_cert": settings.tls_cert,
        "tls_key": settings.tls_key,
        "tls_server_name": settings.tls_server_name,
    }
    given = [key for key, value in encrypted.items() if value]
    if given and not uri.startswith("https://"):
        raise ConfigError(f"index.{given[0]}: TLS is for an index.uri that begins with https://")
    if settings.database and not uri.startswith("http"):
        raise ConfigError("index.database: only a server has databases; remove it, or set index.uri to a server")
    if bool(settings.tls_cert) != bool(settings.tls_key) or (settings.tls_cert and not settings.tls_ca):
        raise ConfigError("index.tls_cert: a certificate of our own needs tls_cert, tls_key and tls_ca")
    for key in ("tls_ca", "tls_cert", "tls_key"):
        if encrypted[key] and not Path(encrypted[key]).is_file():
            raise ConfigError(f"index.{key}: no such file: {encrypted[key]}")
    files = (
        {"ca_pem_path": settings.tls_ca, "client_pem_path": settings.tls_cert, "client_key_path": settings.tls_key}
        if settings.tls_cert
        else {"server_pem_path": settings.tls_ca}
    )
    return {"token": settings.token, "db_name": settings.database, "server_name": settings.tls_server_name, **files}
