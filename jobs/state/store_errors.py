"""What an object store's refusal means to whoever configured it. Its own words may quote a request: none is shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedding.buckets import DENIED, Bucket
from embedding.errors import RefusedError, ResourceError

if TYPE_CHECKING:
    from obstore.exceptions import BaseError

_RIGHTS = {"PUT": "s3:PutObject", "GET": "s3:GetObject", "HEAD": "s3:GetObject", "DELETE": "s3:DeleteObject"}
_KEY_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
_MACHINE_ROLE = "//169.254."  # where a machine of AWS tells its credentials: asked last, so there are no others
_LOOK = "look at the credentials in the environment and at state.storage"


def store_error(place: str, bucket: Bucket, error: BaseError) -> ResourceError:
    """What to raise for an error of the client at ``place``.

    RefusedError where the same would be refused again: a bucket, credentials or rights that are not there.
    """
    text = str(error).partition("\n\nDebug source")[0]
    told = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code: (\d+)", text)
    code = told[1] if told else ""
    if _MACHINE_ROLE in text:
        return RefusedError(
            f"{place}: there are no credentials in the environment; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE"
        )
    if code == "NoSuchBucket":
        return RefusedError(
            f"{place}: there is no bucket {bucket.name!r} {_at(bucket)}; make it, or correct state.uri or state.storage"
        )
    if code in DENIED:
        kind = RefusedError if code != "ExpiredToken" else ResourceError
        return kind(f"{place}: the object store denies access ({code}{_lacking(code, text)}); {_LOOK}")
    if not code and "HTTP error" in text:
        if bucket.endpoint.startswith("http://") and not bucket.allow_http:  # the environment's
            return RefusedError(
                f"{place}: AWS_ENDPOINT_URL is http://, which all on the way can read; set state.storage.allow_http = "
                "true if that may be"
            )
        return ResourceError(
            f"{place}: the object store {_at(bucket)} cannot be reached; look at state.storage.endpoint, or wait for it"
        )
    kind_told = code or type(error).__name__.removesuffix("Error")
    return ResourceError(f"{place}: the object store does not do what it is asked ({kind_told}); {_LOOK}")


def _at(bucket: Bucket) -> str:
    return f"at {bucket.endpoint}" if bucket.endpoint else f"in AWS's region {bucket.region}"


def _lacking(code: str, text: str) -> str:
    """The right that is missing, where the credentials themselves are known to the store."""
    if code in _KEY_CODES:
        return ""
    method = re.search(r"performing ([A-Z]+) ", text)
    right = "s3:ListBucket" if "list request" in text else _RIGHTS.get(method[1] if method else "", "")
    return f"; it takes the right {right}" if right else ""
