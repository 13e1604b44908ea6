"""Reads what others keep in an object store (S3, or what speaks its protocol): listed in pages, read whole or in part.

Takes any key, as others choose theirs, and credentials of a profile. Of a store that cannot be asked it raises OSError
with words that may be shown: answers of stores may quote what was sent.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer

SCHEME = "s3://"
REGION = "us-east-1"
_READ_AHEAD = 1 << 18  # bytes that a small read of an open object asks for
_ATTEMPTS = 4  # of an answer
DENIED = {  # codes of S3's answers, or of HTTP where there is no body
    "401",
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_MISSING = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_CHANGED = {"412", "PreconditionFailed"}
_OTHER = "written over since it was listed"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and how to reach it.

    ``endpoint`` is the address of a store that is not AWS's own. Credentials are found by the process that asks: those
    of ``profile`` in the files of AWS's tools, or without one what AWS's own chain finds.
    """

    name: str
    endpoint: str = ""
    region: str = REGION
    allow_http: bool = False
    profile: str = ""

    def delta_options(self) -> dict[str, str]:
        """What deltalake is told, without a profile's credentials."""
        own = {"AWS_ENDPOINT_URL": self.endpoint} if self.endpoint else {}
        return {**own, "AWS_REGION": self.region, "AWS_ALLOW_HTTP": str(self.allow_http).lower()}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it. ``path`` is its key below the prefix; ``modified`` is in ns since 1970."""

    path: str
    size: int
    etag: str
    modified: int

    @property
    def fingerprint(self) -> str:
        """Changes with the bytes, and not with a copy of them."""
        return f"{self.size}:{self.etag}"


@dataclass(frozen=True, slots=True)
class Prefix:
    """All keys of a bucket that begin with ``key`` and a slash; all there are where it is ""."""

    bucket: Bucket
    key: str

    @classmethod
    def of(cls, uri: str, bucket: Bucket) -> Prefix:
        """What ``s3://bucket/prefix`` names, reached as ``bucket`` says."""
        return cls(bucket, uri.removeprefix(f"{SCHEME}{bucket.name}").removeprefix("/").removesuffix("/"))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket.name}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def start(self) -> str:
        """What all its keys begin with."""
        return self.key and f"{self.key}/"

    def listing(self) -> Iterator[StoredObject]:
        """All objects below it, by their keys. An empty one that stands for a folder is none. Raises OSError."""
        past = len(self.start)
        with _asked(self.bucket):
            pages = _client(self.bucket).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket.name, Prefix=self.start):
                for told in page.get("Contents", ()):
                    path = told["Key"][past:]
                    if path and not (path.endswith("/") and told["Size"] == 0):
                        yield _stored(path, told["Size"], told)

    def single(self) -> StoredObject | None:
        """The object that has the prefix itself for a key; None where there is none. Raises OSError."""
        if not self.key:
            return None
        try:
            return self.look("")
        except FileNotFoundError:
            return None

    def look(self, path: str) -> StoredObject:
        """An object below it. Raises OSError."""
        with _asked(self.bucket):
            told = _client(self.bucket).head_object(Bucket=self.bucket.name, Key=self._key(path))
        return _stored(path, told["ContentLength"], told)

    def read(self, path: str, most: int | None = None, etag: str = "") -> bytes:
        """An object, or so many of its first bytes; with an ``etag`` no other than that one. Raises OSError."""
        return self._body({"Key": self._key(path), **_same(etag)}, most)

    def open(self, path: str, etag: str = "", *, buffer: int = _READ_AHEAD) -> io.BufferedReader:
        """An object to read in any order, all of it as it is now, or as it was when it had the ``etag``.

        Raises OSError; also where it is read, once it is another.
        """
        found = self.look(path)
        if etag not in ("", found.etag):
            raise OSError(errno.ESTALE, _OTHER)
        return io.BufferedReader(ObjectFile(self, found), buffer)

    def read_range(self, path: str, start: int, stop: int, etag: str) -> bytes:
        """Bytes of an object from ``start`` to before ``stop``, at least one. Raises OSError, also if it changed."""
        return self._body({"Key": self._key(path), "Range": f"bytes={start}-{stop - 1}", **_same(etag)})

    @contextmanager
    def delta_options(self) -> Iterator[dict[str, str]]:
        """What deltalake is told as it opens a table, in the block. Raises OSError where a profile has no credentials.

        deltalake adds what the environment has: the token of other credentials is kept from it.
        """
        options = self.bucket.delta_options()
        if self.bucket.profile:
            with _asked(self.bucket):
                found = _session(self.bucket).get_credentials()
                if found is None:
                    raise PermissionError(errno.EACCES, f"profile {self.bucket.profile!r} has no credentials")
                keys = found.get_frozen_credentials()
            options |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
            if keys.token:
                options["AWS_SESSION_TOKEN"] = keys.token
        other = os.environ.pop("AWS_SESSION_TOKEN", None) if self.bucket.profile else None
        try:
            yield options
        finally:
            if other is not None:
                os.environ["AWS_SESSION_TOKEN"] = other

    def _body(self, asked: dict[str, str], most: int | None = None) -> bytes:
        """An answer's body; asked for again where it breaks off, which the client leaves to us."""
        with _asked(self.bucket):
            from botocore.exceptions import BotoCoreError
            from urllib3.exceptions import HTTPError

            for _ in range(_ATTEMPTS):
                answer = _client(self.bucket).get_object(Bucket=self.bucket.name, **asked)
                length: int = answer["ContentLength"]
                wanted = length if most is None else min(most, length)
                with suppress(BotoCoreError, HTTPError), answer["Body"] as body:
                    data: bytes = body.read(wanted)
                    if len(data) == wanted:  # a connection that is closed early is no error to the client
                        return data
        raise OSError(errno.EIO, f"an answer of the object store broke off, {_ATTEMPTS} times")

    def _key(self, path: str) -> str:
        return self.start + path if path else self.key


class ObjectFile(io.RawIOBase):
    """One state of an object, as a file to read."""

    def __init__(self, prefix: Prefix, found: StoredObject) -> None:
        self._prefix, self._found, self._at = prefix, found, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Begin the next read elsewhere."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._found.size}[whence]
        return self._at

    def readinto(self, buffer: Buffer, /) -> int:
        """Read as much as there is room for. Raises OSError, also where the object is another by now."""
        room = memoryview(buffer).cast("B")
        stop = min(self._at + len(room), self._found.size)
        if stop <= self._at:
            return 0
        data = self._prefix.read_range(self._found.path, self._at, stop, self._found.etag)
        room[: len(data)] = data
        self._at += len(data)
        return len(data)


def _stored(path: str, size: int, told: dict[str, Any]) -> StoredObject:
    return StoredObject(path, size, told["ETag"].strip('"'), round(told["LastModified"].timestamp() * 1e6) * 1000)


def _same(etag: str) -> dict[str, str]:
    return {"IfMatch": f'"{etag}"'} if etag else {}


@lru_cache(maxsize=64)
def _session(bucket: Bucket) -> Any:
    try:
        import boto3
    except ImportError:
        here = socket.gethostname()
        what = f's3:// needs boto3, which is not installed on {here}; run `pip install "embedmill[aws]"` there'
        raise OSError(errno.ENOSYS, what) from None
    for library in ("boto3", "botocore", "urllib3"):  # below INFO they tell each request
        logging.getLogger(library).setLevel(logging.INFO)
    return boto3.Session(profile_name=bucket.profile or None, region_name=bucket.region)


@lru_cache(maxsize=64)
def _client(bucket: Bucket) -> Any:
    session = _session(bucket)
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 8}, connect_timeout=10, read_timeout=60, tcp_keepalive=True
    )
    return session.client("s3", endpoint_url=bucket.endpoint or None, config=config)


@contextmanager
def _asked(bucket: Bucket) -> Iterator[None]:
    """Raise as OSError what the client raises, in words of ours."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound
        from urllib3.exceptions import HTTPError
    except ImportError:
        _session(bucket)  # says so
        raise
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code in DENIED:
            raise PermissionError(errno.EACCES, f"the object store denies access ({code})") from None
        if code in _MISSING:
            what = "no such bucket" if code == "NoSuchBucket" else "no such object"
            raise FileNotFoundError(errno.ENOENT, what) from None
        if code in _CHANGED:
            raise OSError(errno.ESTALE, _OTHER) from None
        raise OSError(errno.EIO, f"the object store does not do what it is asked ({code})") from None
    except ProfileNotFound:
        raise PermissionError(errno.EACCES, f"there is no profile {bucket.profile!r} in AWS's files") from None
    except NoCredentialsError:
        raise PermissionError(errno.EACCES, "AWS finds no credentials in the environment") from None
    except (BotoCoreError, HTTPError) as error:
        raise OSError(errno.EIO, f"the object store cannot be reached ({type(error).__name__})") from None
    except ValueError:  # of the client itself
        raise OSError(errno.EINVAL, "the endpoint or the bucket's name is none that S3's client takes") from None
