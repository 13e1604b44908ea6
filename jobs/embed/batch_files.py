"""Removes the files of batch jobs once the vectors in them are stored: they hold texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embedding.encoders.remote.batch import BatchJobs
from embedding.encoders.remote.service import TryAgain
from embedding.encoders.spec import EncoderSpec

log = logging.getLogger(__name__)


def remove_stored(spec: EncoderSpec, jobs: Sequence[str]) -> None:
    """Remove the files of jobs all of whose vectors are committed; what cannot be removed now is at the run's end."""
    if jobs:
        with _opened(spec) as batch:
            for job in jobs:
                try:
                    batch.remove(job)
                except TryAgain as error:
                    log.warning("files of batch job %s are removed later (%s)", job, error)


def remove_all(spec: EncoderSpec) -> None:
    """Stop all jobs of this state and remove their files, those that a killed run left too.

    Call it only while holding the lease. Raises EncoderError where the bucket does not answer.
    """
    with _opened(spec) as batch:
        batch.remove_all()


@contextmanager
def _opened(spec: EncoderSpec) -> Iterator[BatchJobs]:
    assert spec.remote is not None
    batch = BatchJobs(spec.remote, spec.owner)
    try:
        yield batch
    finally:
        batch.close()
