"""What Bedrock and SageMaker share: a client with one policy of retries, ours, and what AWS's errors mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embedding.encoders.remote.service import RefusedInput, TryAgain
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError

_FULL = {"ThrottlingException", "TooManyRequestsException"}
_THROTTLED = {"ServiceUnavailableException", "ServiceUnavailable"}
_REFUSED = {"ValidationException", "ValidationError"}
_DENIED = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "ResourceNotFoundException",
    "UnrecognizedClientException",
}
_INPUT_STATUS = {400, 413, 422}


def client(name: str, settings: RemoteSettings) -> Any:
    """A boto3 client of a service. Raises ConfigError where boto3 is missing or no region is known."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigError('model.backend: boto3 is not installed; run `pip install "embedmill[aws]"`') from None
    for library in ("boto3", "botocore"):  # below INFO they tell each request, texts and all
        logging.getLogger(library).setLevel(logging.INFO)
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=settings.timeout,
        read_timeout=settings.timeout,
        max_pool_connections=settings.concurrency,
    )
    try:
        return boto3.client(name, region_name=settings.region or None, endpoint_url=settings.url or None, config=config)
    except BotoCoreError as error:
        raise ConfigError(f"model.remote: {name} cannot be used: {error}; see region") from None


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Say AWS's errors in our words. Their messages are left out: they may quote the request.

    Raises RefusedInput, TryAgain, and ConfigError where access is denied.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        NoCredentialsError,
        ReadTimeoutError,
    )

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        # SageMaker wraps what its container said, whatever that was, into a ModelError.
        inner = int(error.response.get("OriginalStatusCode") or 0)
        if code in _REFUSED or inner in _INPUT_STATUS:
            raise RefusedInput(code) from None
        if code in _DENIED or status in (401, 403, 404):
            raise ConfigError(f"model.remote: {name} denies access or has nothing of that name ({code})") from None
        full = code in _FULL or 429 in (status, inner)
        raise TryAgain(code or f"HTTP {status}", throttled=code in _THROTTLED, full=full) from None
    except NoCredentialsError:
        raise ConfigError(f"model.remote: {name}: AWS finds no credentials; set AWS_PROFILE or a role") from None
    except (ReadTimeoutError, ConnectTimeoutError) as error:
        raise TryAgain(type(error).__name__, throttled=True) from None
    except BotoCoreError as error:
        raise TryAgain(type(error).__name__) from None
