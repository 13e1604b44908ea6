"""The files of batch jobs in their bucket: what a job reads and what it has written, a folder for each.

PREFIX/OWNER/JOB/records      ids of the texts, a line each
PREFIX/OWNER/JOB/input.jsonl  the texts; written after the records, so that a folder with it is whole
PREFIX/OWNER/JOB/out/…        what Bedrock writes: vectors, and the texts again
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from embedding.encoders.remote import aws
from embedding.encoders.spec import Batch

log = logging.getLogger(__name__)
_BUCKET = "the bucket of model.remote.batch.uri"
_INPUT, _RECORDS, _OUT = "input.jsonl", "records", "out/"
_AT_ONCE = 1_000  # keys that one request removes


class BatchFiles:
    """All jobs of one ``owner``, through a boto3 client of S3. Methods raise TryAgain, and ConfigError with the key."""

    def __init__(self, s3: Any, batch: Batch, owner: str) -> None:
        self._s3 = s3
        self._bucket, _, prefix = batch.uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.rstrip('/')}/{owner}/"

    def input_uri(self, job: str) -> str:
        """What Bedrock is told to read."""
        return f"s3://{self._bucket}/{self._prefix}{job}/{_INPUT}"

    def output_uri(self, job: str) -> str:
        """Where Bedrock is told to write."""
        return f"s3://{self._bucket}/{self._prefix}{job}/{_OUT}"

    def jobs(self, start: str) -> list[str]:
        """Names of the jobs that begin so and whose input is whole."""
        names = (key.removeprefix(self._prefix).split("/") for key in self._keys(start))
        return [parts[0] for parts in names if parts[1:] == [_INPUT]]

    def records(self, job: str) -> set[str]:
        """Ids of the texts of a job."""
        return set(self._read(f"{self._prefix}{job}/{_RECORDS}").decode().split())

    def write(self, job: str, inputs: Mapping[str, object]) -> None:
        """Write what a job is to read, by the id of each text."""
        lines = (json.dumps({"recordId": one, "modelInput": body}) for one, body in inputs.items())
        for name, data in ((_RECORDS, "\n".join(inputs)), (_INPUT, "\n".join(lines))):
            with aws.errors_of(_BUCKET):
                self._s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}{job}/{name}", Body=data.encode())

    def results(self, job: str) -> Iterator[Mapping[str, Any]]:
        """What the job has written of each record, in any order; lines that are no JSON are left out."""
        for key in list(self._keys(f"{job}/{_OUT}")):
            if not key.endswith(".jsonl.out"):
                continue
            with aws.errors_of(_BUCKET):
                body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
                for line in body.iter_lines(1 << 20):  # vectors in digits: hundreds of megabytes
                    try:
                        found = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(found, dict):
                        yield found

    def remove(self, start: str = "") -> int:
        """Remove all files of the jobs that begin so; returns how many there were."""
        keys = list(self._keys(start))
        for first in range(0, len(keys), _AT_ONCE):
            some = [{"Key": key} for key in keys[first : first + _AT_ONCE]]
            with aws.errors_of(_BUCKET):
                self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": some, "Quiet": True})
        return len(keys)

    def _keys(self, start: str) -> Iterator[str]:
        with aws.errors_of(_BUCKET):
            pages = self._s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + start):
                yield from (told["Key"] for told in page.get("Contents", ()))

    def _read(self, key: str) -> bytes:
        with aws.errors_of(_BUCKET):
            data: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            return data
