"""Paths in an object store (S3, or what speaks its protocol), with as much of ``pathlib`` as the state asks for.

A folder is every key that begins with it: it is there while it holds something, and needs no making. What a listing
shows is what was written before it, as these stores promise.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from embedding.buckets import SCHEME, Bucket
from embedding.errors import RefusedError
from jobs.state.store_errors import store_error

if TYPE_CHECKING:
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import ClientConfig, S3Config, S3Store
    from pyarrow.fs import S3FileSystem
    from typing_extensions import Buffer


class ObjectStat(NamedTuple):
    """Size in bytes, and time of the last write (seconds since 1970) by the store's clock."""

    st_size: int
    st_mtime: float


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """A key, or all keys below it, in a bucket. Raises ResourceError where the store cannot be asked."""

    bucket: Bucket
    key: str

    def __truediv__(self, name: str | PurePosixPath) -> ObjectPath:
        return ObjectPath(self.bucket, "/".join(part for part in (self.key, str(name).strip("/")) if part))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket.name}/{self.key}"

    def __lt__(self, other: ObjectPath) -> bool:
        return self.key < other.key

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """All but the last part."""
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def relative_to(self, folder: ObjectPath) -> PurePosixPath:
        """The rest of the key. Raises ValueError for one that is not below the folder."""
        return PurePosixPath(self.key).relative_to(folder.key)

    # -- objects -------------------------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """The object. Raises FileNotFoundError."""
        with self._asked():
            return bytes(obstore.get(self._client(), self.key).bytes())

    def pieces(self, size: int) -> Iterator[bytes]:
        """The object in pieces of about so many bytes. Raises FileNotFoundError."""
        with self._asked():
            for piece in obstore.get(self._client(), self.key).stream(min_chunk_size=size):
                yield bytes(piece)

    def read_text(self) -> str:
        """The object, which is UTF-8. Raises FileNotFoundError."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> None:
        """Write the object, in place of one that is there. Readers see the one or the other, whole."""
        with self._asked():
            obstore.put(self._client(), self.key, data)

    def keeps_versions(self) -> bool:
        """Whether the bucket keeps what is written over or removed. Writes the object, and removes it."""
        with self._asked():
            told = obstore.put(self._client(), self.key, b"")
            obstore.delete(self._client(), self.key)
        return told.get("version") not in (None, "null")  # "null" where it has stopped doing so

    def create(self, data: bytes) -> bool:
        """Write the object where there is none; False where there is. Of several at once one succeeds."""
        with self._asked():
            try:
                obstore.put(self._client(), self.key, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def stat(self) -> ObjectStat:
        """Size and time of the object. Raises FileNotFoundError."""
        with self._asked():
            found = obstore.head(self._client(), self.key)
        return ObjectStat(found["size"], found["last_modified"].timestamp())

    def exists(self) -> bool:
        """Whether there is the object, or something below it."""
        try:
            self.stat()
        except FileNotFoundError:
            return self.is_dir()
        return True

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object. Raises FileNotFoundError where there is none, but with ``missing_ok``."""
        if not missing_ok:
            self.stat()
        with self._asked():
            obstore.delete(self._client(), self.key)

    # -- folders -------------------------------------------------------------------------------------------------

    def is_dir(self) -> bool:
        """Whether there is something below it."""
        return next(self._listed(chunk=1), None) is not None

    def mkdir(self, *, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder needs no making."""

    def iterdir(self) -> Iterator[ObjectPath]:
        """The objects and folders in it."""
        with self._asked():
            found = obstore.list_with_delimiter(self._client(), self.key)
        keys = {*found["common_prefixes"], *(one["path"] for one in found["objects"])} - {self.key}
        return iter([ObjectPath(self.bucket, key) for key in sorted(keys)])

    def folders(self) -> Iterator[ObjectPath]:
        """The folders in it that hold something. Some stores list those that did, too."""
        with self._asked():
            found = obstore.list_with_delimiter(self._client(), self.key)
        paths = [ObjectPath(self.bucket, key) for key in sorted(found["common_prefixes"])]
        return (path for path in paths if path.is_dir())

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """What of ``iterdir`` has a name that matches."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """All objects below it whose name matches."""
        found = (ObjectPath(self.bucket, key) for key, _ in self._listed())
        return (path for path in found if fnmatchcase(path.name, pattern))

    def sizes(self) -> Mapping[str, int]:
        """Bytes of all objects below it, by the rest of their keys."""
        start = len(self.key) + 1
        return {key[start:]: size for key, size in self._listed()}

    def tags(self, after: str) -> list[tuple[str, tuple[int, float, str]]]:
        """Name, and size, time and ETag, of the first 1000 objects whose name comes after a text. One request."""
        with self._asked():
            found = next(
                iter(obstore.list(self._client(), self.key, offset=f"{self.key}/{after}", chunk_size=1000)), []
            )
        start = len(self.key) + 1
        return [
            (one["path"][start:], (one["size"], one["last_modified"].timestamp(), one["e_tag"] or "")) for one in found
        ]

    def remove_all(self) -> None:
        """Remove all objects below it. Those that say what the others are (JSON) go first."""
        paths = list(self.sizes())
        self.remove([path for path in paths if path.endswith(".json")])
        self.remove([path for path in paths if not path.endswith(".json")])

    def remove(self, paths: Sequence[str]) -> None:
        """Remove objects below it by the rest of their keys; one that is not there does no harm."""
        if paths:
            with self._asked():
                obstore.delete(self._client(), [(self / path).key for path in paths])

    def _listed(self, chunk: int = 1000) -> Iterator[tuple[str, int]]:
        with self._asked():
            for some in obstore.list(self._client(), self.key, chunk_size=chunk):
                # A store may keep an empty object for the folder itself.
                yield from ((one["path"], one["size"]) for one in some if one["path"] != self.key)

    # -- libraries -----------------------------------------------------------------------------------------------

    def filesystem(self) -> S3FileSystem:
        """What pyarrow reads it with, by ``address``."""
        return _filesystem(self.bucket)

    @property
    def address(self) -> str:
        """What pyarrow calls it."""
        return f"{self.bucket.name}/{self.key}"

    @contextmanager
    def writing(self) -> Iterator[io.RawIOBase]:
        """Write the object piece by piece. It is there when the block ends; an error in it leaves none."""
        with self._asked(), obstore.open_writer(self._client(), self.key) as sink:
            yield _Sink(sink)

    def _client(self) -> S3Store:
        return _client(self.bucket)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except BaseError as error:
            raise store_error(str(self), self.bucket, error) from None


class _Sink(io.RawIOBase):
    """What is written to an object, as a file of Python's."""

    def __init__(self, sink: obstore.WritableFile) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        return self._sink.write(bytes(data))


@lru_cache(maxsize=8)
def _client(bucket: Bucket) -> S3Store:
    from obstore.store import S3Store

    told: S3Config = {"region": bucket.region}
    if bucket.endpoint:  # of none it makes an error
        told["endpoint"] = bucket.endpoint
    options: ClientConfig = {"allow_http": bucket.allow_http}
    return S3Store(bucket.name, config=told, client_options=options, credential_provider=_credentials())


def _credentials() -> Boto3CredentialProvider | None:
    """Those of a profile, which the client does not know of by itself; None where the environment has them.

    Raises RefusedError for a profile that is not there or has none.
    """
    if "AWS_ACCESS_KEY_ID" in os.environ or not {"AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"} & os.environ.keys():
        return None
    from botocore.exceptions import ProfileNotFound
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except (ProfileNotFound, ValueError):
        raise RefusedError("AWS_PROFILE: AWS's files have no such profile, or no credentials in it") from None


@lru_cache(maxsize=8)
def _filesystem(bucket: Bucket) -> S3FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    address = urlsplit(bucket.endpoint)
    own = {"endpoint_override": address.netloc, "scheme": address.scheme} if bucket.endpoint else {}
    return S3FileSystem(region=bucket.region, retry_strategy=AwsStandardS3RetryStrategy(max_attempts=10), **own)
