"""Bedrock's batch inference: many texts as one job, which reads and writes a bucket and costs half.

A job is named by the texts that it holds, and asked for under a token of the same name: a process that was killed at
any point finds it, and none is asked for twice. What it has written is taken for whatever texts are asked for now,
also where these are divided otherwise than when the job was made. Nothing is removed here before the caller says that
the vectors are stored.

Shapes from botocore's model of the service ``bedrock`` and from AWS's page on the format of batch data.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from embedding.encoders.remote import aws
from embedding.encoders.remote.batch_files import BatchFiles
from embedding.encoders.remote.bedrock import titan_body
from embedding.encoders.remote.cost import Cost, EndpointCost
from embedding.encoders.remote.service import RefusedInput, TryAgain
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError, EncoderError

log = logging.getLogger(__name__)
_KEY = "model.remote.batch"
_RUNNING = {"Submitted", "Validating", "Scheduled", "InProgress", "Stopping"}
_FORMAT = "1"  # part of a job's name: change it with what is asked of the model for a text
_ID = 11  # characters of a record's id that AWS's page asks for; 55 bits
_LONGEST_WAIT = 20.0  # seconds between two attempts at a request
_GRACE = 3600.0  # seconds after which Bedrock should have ended a job by itself
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    name: str
    arn: str
    status: str

    @property
    def running(self) -> bool:
        return self.status in _RUNNING


class BatchJobs:
    """The jobs of one ``owner`` (a short name of a state) and of one model, for one thread."""

    def __init__(self, settings: RemoteSettings, owner: str) -> None:
        assert settings.batch is not None
        self._settings, self._batch = settings, settings.batch
        self._bedrock = aws.client("bedrock", replace(settings, url=""))
        self._s3 = aws.client("s3", replace(settings, url=""))
        self._files = BatchFiles(self._s3, self._batch, owner)
        self._all = f"embedmill-{owner}-"
        space = _digest([_FORMAT, settings.model, str(settings.dim), str(settings.normalise)], 4)
        self._start = f"{self._all}{space}-"
        online = settings.usd_per_million_tokens
        price = self._batch.usd_per_million_tokens
        self._price = online / 2 if price is None else price
        self._cost = Cost()
        self._done: list[str] = []

    def close(self) -> None:
        """Close the connections."""
        self._bedrock.close()
        self._s3.close()

    def encode(self, keys: Sequence[str], texts: Sequence[str]) -> dict[int, npt.NDArray[np.float32]]:
        """Vectors of as many of the texts as jobs encode, by row. ``keys`` are keyed hashes that stand for the texts.

        Waits for jobs, for hours. Raises EncoderError where a job fails as a whole, ConfigError with the key.
        """
        rows = {_record_id(key): row for row, key in enumerate(keys)}
        found: dict[int, npt.NDArray[np.float32]] = {}
        for name in self._retried(self._files.jobs, self._start):
            records = self._retried(self._files.records, name)
            if records.isdisjoint(rows) or (job := self._find(name)) is None:
                continue
            self._collect(self._ended(job), rows, texts, found)
            if records <= rows.keys():
                self._done.append(name)
        left = {one: row for one, row in rows.items() if row not in found}
        if len(left) >= self._batch.min_texts:
            job = self._ended(self._submit(left, texts))
            if job.status == "Failed":
                self._retried(self._files.remove, f"{job.name}/")
                raise EncoderError(
                    f"{_KEY}: Bedrock's job {job.name} failed; its message is with the job. See role_arn and uri"
                )
            self._collect(job, left, texts, found)
            self._done.append(job.name)
        return found

    def take_cost(self) -> Cost:
        """What was spent since it was last taken."""
        spent, self._cost = self._cost, Cost()
        return spent

    def take_done(self) -> list[str]:
        """Names of the jobs that no other text needs, once those that were asked for are stored."""
        done, self._done = self._done, []
        return done

    def remove(self, job: str) -> None:
        """Remove a job's files. Raises TryAgain or ConfigError."""
        self._files.remove(f"{job}/")

    def remove_all(self) -> int:
        """Stop all jobs of the owner and remove all files; returns how many. Raises EncoderError or ConfigError."""
        for job in self._listed(self._all):
            if job.running and job.status != "Stopping":
                self._asked(self._bedrock.stop_model_invocation_job, jobIdentifier=job.arn)
        return self._retried(self._files.remove)

    # -- one job -----------------------------------------------------------------------------------------------------

    def _submit(self, rows: Mapping[str, int], texts: Sequence[str]) -> _Job:
        base = self._start + _digest(sorted(rows), 10)
        # A name that was used up by a job that has ended is not given again: its token would bring that one back.
        ended = [job for job in self._listed(f"{base}-") if not job.running]
        name = f"{base}-{len(ended) + 1}"
        inputs = {one: titan_body(texts[row], self._settings.dim) for one, row in rows.items()}
        self._retried(self._files.write, name, inputs)
        batch = self._batch
        answer = self._asked(
            self._bedrock.create_model_invocation_job,
            jobName=name,
            clientRequestToken=name,
            roleArn=batch.role_arn,
            modelId=self._settings.model,
            inputDataConfig={"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": self._files.input_uri(name)}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": self._files.output_uri(name)}},
            timeoutDurationInHours=batch.max_hours,
        )
        log.info("batch job %s of %d texts", name, len(rows))
        return _Job(name, answer["jobArn"], "Submitted")

    def _ended(self, job: _Job) -> _Job:
        """Wait until a job has ended, however it did. Raises EncoderError where Bedrock does not end it."""
        until = time.monotonic() + self._batch.max_hours * 3600 + _GRACE
        while True:
            told = self._asked(self._bedrock.get_model_invocation_job, jobIdentifier=job.arn)
            job = replace(job, status=told["status"])
            if not job.running:
                return job
            if time.monotonic() > until:
                raise EncoderError(f"{_KEY}: job {job.name} is {job.status} after {self._batch.max_hours} hours")
            time.sleep(self._batch.poll_seconds)

    def _collect(
        self, job: _Job, rows: Mapping[str, int], texts: Sequence[str], found: dict[int, npt.NDArray[np.float32]]
    ) -> None:
        """Put what a job has written of the ``rows`` into ``found``; also of one that ended early."""

        def read() -> tuple[dict[int, npt.NDArray[np.float32]], int]:
            vectors, tokens = {}, 0
            for result in self._files.results(job.name):
                row = rows.get(str(result.get("recordId")))
                if row is not None and row not in found and (vector := self._vector(result, texts[row])) is not None:
                    vectors[row] = vector
                    tokens += int(result["modelOutput"].get("inputTextTokenCount", 0))
            return vectors, tokens

        vectors, tokens = self._retried(read)
        found.update(vectors)
        usd = tokens * self._price / 1e6
        endpoint = EndpointCost(f"batch bedrock {self._settings.model}", 1, tokens=tokens, usd=usd)
        self._cost += Cost(requests=1, texts=len(vectors), tokens=tokens, usd=usd, endpoints=(endpoint,))

    def _vector(self, result: Mapping[str, Any], text: str) -> npt.NDArray[np.float32] | None:
        """The vector in a result; None where there is none that can be used, or the result is of another text."""
        try:
            if result.get("modelInput", {"inputText": text})["inputText"] != text:
                return None
            vector = np.asarray(result["modelOutput"]["embedding"], dtype=np.float32)
        except (KeyError, TypeError, ValueError):
            return None
        length = np.linalg.norm(vector) if vector.shape == (self._settings.dim,) else np.float32(0)
        if not np.isfinite(length) or not length:
            return None
        return vector / length if self._settings.normalise else vector

    # -- requests ----------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> _Job | None:
        return next((job for job in self._listed(name) if job.name == name and job.status != "Failed"), None)

    def _listed(self, start: str) -> list[_Job]:
        def ask() -> list[_Job]:
            pages = self._bedrock.get_paginator("list_model_invocation_jobs").paginate(nameContains=start)
            told = [one for page in pages for one in page.get("invocationJobSummaries", ())]
            jobs = [_Job(one["jobName"], one["jobArn"], one.get("status", "Submitted")) for one in told]
            return [job for job in jobs if job.name.startswith(start)]

        return self._asked(ask)

    def _asked(self, ask: Callable[..., T], **given: object) -> T:
        """What Bedrock answers. Raises EncoderError where it does not, ConfigError where it refuses."""

        def once() -> T:
            with aws.errors_of("bedrock"):
                return ask(**given)

        try:
            return self._retried(once)
        except RefusedInput as error:
            raise ConfigError(f"{_KEY}: Bedrock refuses the job ({error}); see role_arn, uri and model") from None

    def _retried(self, ask: Callable[..., T], *given: object) -> T:
        retrying = Retrying(
            retry=retry_if_exception_type(TryAgain),
            stop=stop_after_attempt(self._settings.attempts),
            wait=wait_random_exponential(max=_LONGEST_WAIT),
            reraise=True,
        )
        try:
            return retrying(ask, *given)
        except TryAgain as error:
            raise EncoderError(
                f"{_KEY}: AWS did not answer in {self._settings.attempts} attempts ({error}); run again, and the jobs "
                "that are under way are found"
            ) from None


def _digest(parts: Sequence[str], size: int) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=size).hexdigest()


def _record_id(key: str) -> str:
    """Letters and digits that stand for a text of a job."""
    return base64.b32encode(hashlib.blake2b(key.encode(), digest_size=8).digest()).decode()[:_ID]
