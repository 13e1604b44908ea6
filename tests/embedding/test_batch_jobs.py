"""Batch jobs of Bedrock: whatever becomes of a job or of who waits for it, each text has its vector, and is paid once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedding.encoders.remote.batch import BatchJobs
from embedding.encoders.spec import Batch, RemoteSettings
from embedding.errors import ConfigError, EncoderError
from tests.support.bedrock_batch import Bedrock, bedrock
from tests.support.object_store import BUCKET, KEYS, Asked, Proxy, Store
from tests.support.paths import ROOT
from tests.support.services import DIM, vector_of

ROLE = "arn:aws:iam::123456789012:role/batch"
TITAN = "amazon.titan-embed-text-v2:0"
TEXTS = [f"text {n} " + "word " * (n % 5) for n in range(130)]
OWNER = "0123456789"
# A process that asks for the vectors of the texts, and is killed by the servers that it asks.
CHILD = """
import os, sys
from tests.embedding.test_batch_jobs import encode
encode(os.environ["BUCKET_PREFIX"])
"""


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


@pytest.fixture
def service(moto: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bedrock]:
    with bedrock(moto) as found:
        for name, value in _environment(moto.uri, found.url).items():
            monkeypatch.setenv(name, value)
        yield found


def _environment(s3: str, url: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL_S3": s3, "AWS_ENDPOINT_URL_BEDROCK": url, **KEYS}


def opened(prefix: str, owner: str = OWNER, **more: Any) -> BatchJobs:
    batch = Batch(f"s3://{BUCKET}/{prefix}", ROLE, min_texts=100, poll_seconds=0.01, **more)
    settings = RemoteSettings(
        TITAN, DIM, region="eu-west-1", attempts=3, timeout=20.0, usd_per_million_tokens=2.0, batch=batch
    )
    return BatchJobs(settings, owner)


def encode(prefix: str, texts: list[str] = TEXTS, jobs: BatchJobs | None = None) -> dict[int, np.ndarray]:
    """The vectors that jobs gave, each proven to be its text's."""
    batch = jobs or opened(prefix)
    found = batch.encode([f"T01 {hash_of(text)}" for text in texts], texts)
    for row, vector in found.items():
        np.testing.assert_allclose(vector, vector_of(texts[row]), atol=1e-6)
    if jobs is None:
        batch.close()
    return found


def hash_of(text: str) -> str:
    """Stands for a keyed hash."""
    return str(TEXTS.index(text)) if text in TEXTS else f"other {text}"


def files(moto: Store, prefix: str) -> list[str]:
    told = moto.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    return [one["Key"] for one in told.get("Contents", ())]


def test_a_job_encodes_each_text_at_its_price_and_leaves_no_file(service: Bedrock, moto: Store, prefix: str) -> None:
    jobs = opened(prefix)
    assert len(encode(prefix, jobs=jobs)) == len(TEXTS)
    cost = jobs.take_cost()
    tokens = sum(len(text.split()) for text in TEXTS)
    assert (cost.requests, cost.texts, cost.tokens) == (1, len(TEXTS), tokens)
    assert cost.usd == pytest.approx(tokens * 1.0 / 1e6), "half the price"
    assert files(moto, prefix) != [], "what is not stored yet stays"
    [done] = jobs.take_done()
    jobs.remove(done)
    assert files(moto, prefix) == [] and len(service.jobs) == 1
    assert not any(text in str(job.asked) for job in service.jobs for text in TEXTS), "no text in a request"
    jobs.close()


def test_too_few_texts_go_online(service: Bedrock, moto: Store, prefix: str) -> None:
    assert encode(prefix, TEXTS[:99]) == {} and service.jobs == [] and files(moto, prefix) == []


@pytest.mark.parametrize("fault", ["error", "missing", "narrow", "other"])
def test_records_that_fail_are_left_for_online(service: Bedrock, prefix: str, fault: str) -> None:
    bad = set(TEXTS[10:20])
    service.of_record = lambda text: fault if text in bad else ""
    found = encode(prefix)
    assert {TEXTS[row] for row in range(len(TEXTS)) if row not in found} == bad


@pytest.mark.parametrize("ends", ["PartiallyCompleted", "Expired", "Stopped"])
def test_of_a_job_that_ends_early_what_it_wrote_is_used(service: Bedrock, prefix: str, ends: str) -> None:
    service.ends = ends
    assert len(encode(prefix)) == len(TEXTS) // 2 and len(service.jobs) == 1


def test_a_job_that_fails_is_one_line_and_its_texts_do_not_stay(service: Bedrock, moto: Store, prefix: str) -> None:
    service.ends = "Failed"
    with pytest.raises(EncoderError, match=r"model\.remote\.batch.*failed"):
        encode(prefix)
    assert files(moto, prefix) == []
    service.ends = "Completed"
    assert len(encode(prefix)) == len(TEXTS), "and the next run asks anew"
    assert [job.asked["jobName"][-1] for job in service.jobs] == ["1", "2"]


def test_a_wrong_role_is_named(service: Bedrock, prefix: str) -> None:
    batch = Batch(f"s3://{BUCKET}/{prefix}", "nobody", min_texts=100)
    jobs = BatchJobs(RemoteSettings(TITAN, DIM, region="eu-west-1", attempts=2, batch=batch), OWNER)
    with pytest.raises(ConfigError, match=r"model\.remote\.batch.*role_arn"):
        encode(prefix, jobs=jobs)
    jobs.close()


def test_a_bucket_that_is_not_there_is_named(service: Bedrock, prefix: str) -> None:
    batch = Batch("s3://no-such-bucket/x", ROLE, min_texts=100)
    jobs = BatchJobs(RemoteSettings(TITAN, DIM, region="eu-west-1", attempts=2, batch=batch), OWNER)
    with pytest.raises(ConfigError, match=r"model\.remote\.batch\.uri"):
        encode(prefix, jobs=jobs)
    jobs.close()


def test_texts_that_are_divided_otherwise_find_their_job(service: Bedrock, moto: Store, prefix: str) -> None:
    encode(prefix)
    jobs = opened(prefix)
    first = encode(prefix, [*TEXTS[:60], "new here"], jobs)
    assert sorted(first) == list(range(60)) and jobs.take_done() == [], "others need it yet"
    assert sorted(encode(prefix, TEXTS[60:], jobs)) == list(range(70))
    assert len(service.jobs) == 1
    jobs.remove_all()
    assert files(moto, prefix) == []
    jobs.close()


def test_a_job_that_is_not_listed_yet_is_not_asked_for_twice(service: Bedrock, prefix: str) -> None:
    service.listed = False
    encode(prefix)
    assert len(encode(prefix)) == len(TEXTS) and len(service.jobs) == 1


def test_what_another_state_or_model_has_asked_is_no_concern_of_this_one(
    service: Bedrock, moto: Store, prefix: str
) -> None:
    other = opened(prefix, "ffffffffff")
    encode(prefix, jobs=other)
    ours = opened(prefix)
    encode(prefix, jobs=ours)
    assert len(service.jobs) == 2
    ours.remove_all()
    assert files(moto, prefix) and all("/ffffffffff/" in key for key in files(moto, prefix))
    for jobs in (ours, other):
        jobs.close()


def test_what_is_left_over_is_stopped_and_removed(service: Bedrock, moto: Store, prefix: str) -> None:
    jobs = opened(prefix)
    jobs._submit({f"{n:011}": n for n in range(len(TEXTS))}, TEXTS)
    assert jobs.remove_all() == 2
    assert files(moto, prefix) == [] and service.jobs[0].status == "Stopped"
    jobs.close()


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_request_and_run_again_there_is_one_job(
    moto: Store, monkeypatch: pytest.MonkeyPatch, prefix: str, after: bool
) -> None:
    """kill -9 at the first request, the second and so on to the last, before it is done or once it is."""
    killed_at = 0
    while True:
        killed_at += 1
        place = f"{prefix}-{killed_at}"
        with bedrock(moto) as service:
            died = _killed(moto, service, place, killed_at, after)
            for name, value in _environment(moto.uri, service.url).items():
                monkeypatch.setenv(name, value)
            jobs = opened(place)
            assert len(encode(place, jobs=jobs)) == len(TEXTS), f"killed at request {killed_at}"
            assert len(service.jobs) == 1, f"killed at request {killed_at}"
            jobs.remove_all()
            assert files(moto, place) == []
            jobs.close()
        if not died:
            break
    assert killed_at > 10, "there are so many requests"


def _killed(moto: Store, service: Bedrock, place: str, at: int, after: bool) -> bool:
    """Run a process that encodes and is killed at that request; False where it made fewer and ended well."""
    count, lock = 0, threading.Lock()
    child: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def count_one() -> bool:
        nonlocal count
        ready.wait()
        with lock:
            count += 1
            if count == at and child[0].poll() is None:
                os.kill(child[0].pid, signal.SIGKILL)
                child[0].wait()
            return count >= at

    def fault(asked: Asked) -> str:
        return "" if not count_one() else "lose" if after else "503"

    def seen(what: str, done: bool) -> None:
        if done == after:
            count_one()

    service.seen = seen
    proxy = Proxy(moto, fault)
    with proxy as before:
        environment = os.environ | _environment(before.uri, service.url) | {"BUCKET_PREFIX": place}
        environment["PYTHONPATH"] = str(ROOT)
        child.append(subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stderr=subprocess.DEVNULL))
        ready.set()
        return child[0].wait() != 0
