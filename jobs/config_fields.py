"""What the sections of the configuration are made of: a key with its meaning, and how an object store is reached."""

from __future__ import annotations

import os
import re
from dataclasses import is_dataclass
from typing import Annotated, Any, Self, get_args, get_type_hints
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from embedding.buckets import SCHEME, Bucket, Prefix

OBJECTS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", re.DOTALL)  # others choose their keys


def check_scheme(uri: str, here: str) -> None:
    """Raise ValueError for an address with a scheme that is not S3's. ``here`` is what there may be in place of one."""
    scheme, found, _ = uri.partition("://")
    if found and scheme != "s3":
        raise ValueError(f"{scheme}:// is not supported; give {here}, or s3://bucket/prefix")


def about(meaning: str, unit: str = "", **limits: Any) -> Any:
    """What a key means, the unit of its value ("" for none), and the limits that ``Field`` takes."""
    return Field(description=meaning, json_schema_extra={"unit": unit} if unit else None, **limits)


def check_web_address(address: str) -> None:
    """Raise ValueError, without the address, for what is no http(s) address of a host with or without port and path."""
    try:
        given = urlsplit(address)
        valid = given.scheme in ("http", "https") and bool(given.hostname) and given.port != 0
    except ValueError:  # a port that is no number up to 65535, a wrong IPv6 address
        valid = False
    if not valid or re.search(r"[\s\x00-\x1f\\]", address):
        raise ValueError("give http(s)://host:port")


def check_no_credentials(address: str, instead: str) -> None:
    """Raise ValueError for an address with a user, a password, a query or a fragment; ``instead`` says what to do."""
    given = urlsplit(address)
    if "@" in given.netloc or "?" in address or "#" in address:
        raise ValueError(f"give no user, password or query here; {instead}")


def server_address(address: str) -> str:
    """The address of a server without its last slash; "" as it is. Raises ValueError for what is more than that."""
    if address:
        if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+/?", address):
            raise ValueError("give http(s)://host:port, without credentials or a path")
        check_web_address(address)
    return address.rstrip("/")


def _check_no_number(key: str, value: Any, kind: Any) -> None:
    """Raise ValueError for a bool in the place of something else, also in the tables that are dataclasses."""
    kinds = (kind, *get_args(kind))
    if isinstance(value, bool) and kind is not None and bool not in kinds:
        raise ValueError(f"{key}: cannot be {str(value).lower()}")
    if isinstance(value, list):
        of = next((get_args(one)[0] for one in kinds if get_args(one)), None)
        for number, one in enumerate(value):
            _check_no_number(f"{key}[{number}]", one, of)
    for table in kinds if isinstance(value, dict) else ():
        hints = get_type_hints(table) if is_dataclass(table) else {}
        for name, one in value.items():
            _check_no_number(f"{key}.{name}", one, hints.get(name))


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_number(cls, given: Any) -> Any:
        """Refuse true and false where a number is asked for: pydantic takes them for 1 and 0."""
        kinds = {key: field.annotation for key, field in cls.model_fields.items()}
        for key in given if isinstance(given, dict) else ():
            _check_no_number(key, given[key], kinds.get(key))
        return given


class Storage(Section):
    """How to reach the store of a state at `s3://`. Credentials come from the environment, as for AWS's tools."""

    endpoint: Annotated[
        str,
        about(
            "address of a store that is not AWS's own, `http(s)://host:port`; empty takes `AWS_ENDPOINT_URL_S3`, or "
            "`AWS_ENDPOINT_URL`, of the environment"
        ),
    ] = ""
    region: Annotated[str, about("region of the bucket")] = "us-east-1"
    allow_http: Annotated[bool, about("whether the endpoint may be `http://`, where all can read what passes")] = False

    @property
    def address(self) -> str:
        """The endpoint, or the one that AWS's tools take from the environment. All libraries are told the same."""
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""

    @field_validator("endpoint")
    @classmethod
    def _address(cls, endpoint: str) -> str:
        return server_address(endpoint)

    @model_validator(mode="after")
    def _open(self) -> Self:
        if self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError("endpoint is http://, which all on the way can read; set allow_http = true if that may be")
        return self


class ReadStorage(Storage):
    """How to reach the store of what is read at `s3://`, a source or a model."""

    profile: Annotated[
        str, about("name of the credentials in AWS's files; empty takes those of the environment, as the state does")
    ] = ""

    def prefix(self, uri: str) -> Prefix:
        """What an address ``s3://bucket/prefix`` names."""
        name = uri.removeprefix(SCHEME).partition("/")[0]
        return Prefix.of(uri, Bucket(name, self.address, self.region, self.allow_http, self.profile))
