"""Calls of MLflow's client: quiet, with an end, and with errors of one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedding.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What its client does unless it is told not to: waits for minutes (here some 6 s), prints to our answer, tells others.
_QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def open_client(uri: str) -> MlflowClient:
    """The client of a server. Raises ConfigError where it is not installed."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError:
        raise ConfigError("registry.uri: an MLflow server needs its client; pip install 'embedmill[mlflow]'") from None
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def asking(uri: str, what: str) -> Iterator[None]:
    """Say what could not be done, in one line. The client's own words may hold what a proxy answered."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        fault = f"registry.uri: {uri}: could not {what}"
        if is_away(error):
            raise ResourceError(f"{fault}: it cannot be reached; is the server up?") from None
        code = getattr(error, "error_code", "") or type(error).__name__
        raise ResourceError(f"{fault}: {code}") from None


def is_away(error: BaseException | None) -> bool:
    """Whether an error of the client, or what it was raised for, is of the way to the server or of its state."""
    import requests

    while error is not None:
        if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.RetryError):
            return True
        answer = getattr(error, "response", None)
        if answer is not None and (answer.status_code >= 500 or answer.status_code == 429):
            return True
        if getattr(error, "error_code", "") in ("TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED"):
            return True
        error = error.__cause__ or error.__context__
    return False


def all_pages(search: Callable[..., Any], **given: Any) -> list[Any]:
    """Every page of what a search finds."""
    found, token = [], None
    while True:
        page = search(**given, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def or_none(ask: Callable[[], Any]) -> Any:
    """What a server has, or None where it has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
