"""Sections of the configuration about what goes on around runs: telling, promises, models that are made here."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from jobs.config_fields import Section, about, check_no_credentials, check_web_address, server_address


class Telemetry(Section):
    """Where Prometheus learns of runs, at the end of each command that holds the lease. Nothing is sent by default."""

    pushgateway: Annotated[str, about("address of a Pushgateway, `http(s)://host:port`; empty sends to none")] = ""
    textfile: Annotated[str, about("folder that node-exporter's textfile collector reads; empty writes to none")] = ""
    instance: Annotated[str, about("the label `instance`; empty is the index's name")] = ""
    teams: Annotated[tuple[str, ...], about("teams that have a series of their own", max_length=50)] = ()
    timeout: Annotated[float, about("of a push", "seconds", gt=0, le=60)] = 5.0
    spark_port: Annotated[
        int, about("of Spark's page and exporter, `/metrics/prometheus`; 0 has neither", ge=0, le=65535)
    ] = 0
    ray_port: Annotated[
        int, about("of the exporter of a Ray of our own; a cluster's nodes have theirs; 0 has none", ge=0, le=65535)
    ] = 0
    pages: Annotated[
        bool, about("keep the page of each run (`embedmill report`) in the state, `reports/<run id>.html`")
    ] = False

    @field_validator("pushgateway")
    @classmethod
    def _address(cls, address: str) -> str:
        return server_address(address)

    @field_validator("instance")
    @classmethod
    def _plain(cls, instance: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", instance):
            raise ValueError("use letters, digits, '_', '.' and '-'")
        return instance


class Training(Section):
    """Who takes part in the training of models, and how one is trained (`embedmill train`)."""

    teams: Annotated[tuple[str, ...], about("whose texts are trained on; a team that is not named takes no part")] = ()
    private: Annotated[bool, about("private channels and direct messages take part, too")] = False
    base: Annotated[str, about("the model that is tuned, as in `model.name`; empty is that one")] = ""
    epochs: Annotated[int, about("how often each pair is trained on", ge=1, le=100)] = 1
    batch_size: Annotated[int, about("of a step; each pair's answer is a wrong one for the others", "pairs", ge=2)] = 32
    max_tokens: Annotated[int, about("longest text that is trained on; the rest is cut off", "tokens", ge=8)] = 128
    max_steps: Annotated[int, about("a training ends after so many; 0 does all epochs", "steps", ge=0)] = 0
    learning_rate: Annotated[float, about("at its highest", gt=0, le=1)] = 2e-5
    warmup: Annotated[float, about("share of the steps until then", ge=0, le=1)] = 0.1
    loss: Annotated[
        Literal["auto", "mnrl", "cached", "gist"],
        about("`mnrl` multiple negatives, `cached` the same for large batches, `gist` with the base as a guide"),
    ] = "auto"
    contrast_anchors: Annotated[
        bool, about("questions are told from each other too: in an index the nearest to one is often another")
    ] = True
    adapter: Annotated[
        int, about("rank of a low-rank adapter, which is merged into the weights; 0 trains them all", ge=0, le=1024)
    ] = 0
    blend: Annotated[
        float, about("share of the trained weights in the model that is made; the rest is the base's", gt=0, le=1)
    ] = 1.0
    layers: Annotated[
        int,
        about("how many of the base's layers stay, for a model that costs less; it learns the base's vectors", ge=0),
    ] = 0
    epsilon: Annotated[
        float,
        about("differential privacy: bounds what the model tells of a thread; 0 promises nothing", ge=0, le=1000),
    ] = 0.0
    hard_negatives: Annotated[bool, about("each pair gets a near text that does not answer it")] = False
    margin: Annotated[float, about("such a text is less near than this share of the answer's nearness", gt=0, le=1)] = (
        0.95
    )
    matryoshka: Annotated[
        tuple[int, ...], about("the first so many numbers of a vector are trained to stand alone")
    ] = ()
    held_out: Annotated[float, about("share of the threads, the latest, that the model is measured by", gt=0, lt=1)] = (
        0.2
    )
    seed: Annotated[int, about("of the order, of what is planted, and of dropout", ge=0, le=2**32 - 1)] = 0
    seeds: Annotated[
        int,
        about("trainings, each with the next seed; the model has the mean of their weights", ge=1, le=20),
    ] = 1
    threads: Annotated[int, about("0 takes all cores; the same number gives the same weights", "threads", ge=0)] = 0
    precision: Annotated[
        Literal["f32", "bf16"], about("of the computation; `bf16` is faster on a GPU and on a CPU with AMX")
    ] = "f32"
    checkpoint_steps: Annotated[int, about("a killed training goes on from there", "steps", ge=1)] = 50
    max_exposure: Annotated[
        float, about("most that a model may tell of planted pairs and still be promoted", "bits", ge=0)
    ] = 3.0

    @model_validator(mode="after")
    def _by_itself(self) -> Self:
        if self.epsilon and self.hard_negatives:
            raise ValueError("hard_negatives are texts of other pairs, and with epsilon each pair stands by itself")
        if self.epsilon and self.seeds > 1:
            raise ValueError("epsilon is spent anew by each of the seeds; leave seeds out")
        if self.matryoshka and (self.epsilon or self.layers):
            raise ValueError("matryoshka is for losses that compare pairs; leave out epsilon and layers")
        return self


class Registry(Section):
    """Where models that were trained are kept (`models:/NAME@ALIAS` in `model.name`)."""

    uri: Annotated[str, about("a folder, or `http(s)://` of an MLflow server")] = "registry"
    tainted_hours: Annotated[
        float, about("a model that has seen what was purged since is used no longer than that", "hours", ge=0)
    ] = 72.0

    @field_validator("uri")
    @classmethod
    def _folder_or_server(cls, uri: str) -> str:
        if "://" not in uri:
            return uri
        try:
            check_web_address(uri)
        except ValueError:
            raise ValueError("give a folder, or http(s)://HOST of an MLflow server") from None
        check_no_credentials(uri, "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return uri.rstrip("/")


class Slo(Section):
    """What users are promised. `status`, the metrics and the alerts say whether it is kept; none promises nothing."""

    lag_hours: Annotated[
        Annotated[float, Field(gt=0)] | None, about("what is in the sources is found after", "hours")
    ] = None
    coverage: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None, about("share of the desired chunks that the index has, 0 to 1")
    ] = None
    held_deletion_hours: Annotated[
        Annotated[float, Field(gt=0)] | None, about("a deletion that is held back is decided after", "hours")
    ] = None


class Serve(Section):
    """How queries are served (`embedmill serve`): who may ask, how much waits, and how long."""

    jwt_public_key: Annotated[
        str, about("PEM file of the public key that tokens are checked with (RSA, EC, Ed25519)")
    ] = ""
    jwt_key: Annotated[SecretStr, about("or a shared secret; give it as `EMBEDMILL__SERVE__JWT_KEY`")] = SecretStr("")
    jwt_audience: Annotated[str, about("what a token must be for; empty does not ask")] = ""
    jwt_issuer: Annotated[str, about("who must have made it; empty does not ask")] = ""
    team_claim: Annotated[str, about("claim with the team, or the list of teams, that may be searched")] = "team"
    channel_claim: Annotated[
        str, about("claim with the channels that may be searched beside public ones; empty allows all of a team")
    ] = ""
    open: Annotated[
        bool, about("answer whoever asks, on any address: something in front checks each request and its team")
    ] = False
    deadline_seconds: Annotated[float, about("a request that takes longer is 504, or 408", "seconds", gt=0, le=60)] = (
        2.0
    )
    batch_tokens: Annotated[int, about("encoded at once, at most, of what waits", "tokens", gt=0)] = 4_096
    queue_tokens: Annotated[int, about("may wait; what finds no place is 429", "tokens", gt=0)] = 65_536
    requests: Annotated[int, about("under way at once; more are 429", "requests", gt=0)] = 512
    searches: Annotated[int, about("that the index is asked at once", "searches", gt=0, le=40)] = 16
    body_bytes: Annotated[int, about("longest body of a request; a longer one is 413", "bytes", gt=0)] = 1_000_000
    cached_queries: Annotated[int, about("whose vectors are remembered, apart for each that asks", ge=0)] = 10_000
    reload_seconds: Annotated[float, about("how often the alias is looked at", "seconds", gt=0, le=3600)] = 1.0
    drain_seconds: Annotated[
        float,
        about("from SIGTERM on `/readyz` says no for so long before connections are closed", "seconds", ge=0, le=3600),
    ] = 5.0

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.jwt_public_key and self.jwt_key.get_secret_value():
            raise ValueError("give jwt_public_key or jwt_key, not both: a token could be signed with the public one")
        if 0 < len(self.jwt_key.get_secret_value().encode()) < 32:
            raise ValueError("jwt_key: give 32 bytes or more")
        return self

    @model_validator(mode="after")
    def _who_asks(self) -> Self:
        if not (self.jwt_public_key or self.jwt_key.get_secret_value()):
            return self
        if self.open:
            raise ValueError("open: takes the body's word, and a key asks for tokens; give one of them")
        if not self.team_claim:
            raise ValueError("team_claim: name the claim with the team; without one a key allows nothing")
        return self
