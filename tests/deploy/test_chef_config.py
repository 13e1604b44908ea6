"""The cookbook's configuration and secrets: what comes out is what was in the attributes and the bag, in its one place."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from jobs.config import load_config
from jobs.redaction import is_secret
from tests.support.chef import NO_RUBY, Refused, Resource, evaluate, has_ruby, label, ruby
from tests.support.chef_nodes import (
    ATTRIBUTES,
    CANARY,
    ENVIRONMENTS,
    SECRETS,
    bags,
    evaluated,
    one,
    setting,
    units,
)
from tests.support.secret_keys import SECRET_KEYS

pytestmark = pytest.mark.skipif(not has_ruby(), reason=NO_RUBY)


def test_secrets_are_in_one_file_that_root_alone_reads(resources: list[Resource]) -> None:
    names = set()
    for resource in resources:
        if label(resource) == "template[/etc/embedmill/environment]":
            assert resource["sensitive"] is True
            names = set(re.findall(r"^([A-Z_]+)=", resource["content"], re.M))
        else:
            assert "c4n" not in json.dumps(resource), label(resource)
    roles = {r["name"] for r in resources if r["type"] == "embedmill_unit"}
    if "embedmill-milvus" in roles:
        assert names == set()
    elif "embedmill-serve" in roles:
        assert names == set(SECRETS)
    else:
        assert names == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"}


def test_a_shell_reads_from_the_file_what_was_in_the_bag(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text(one(evaluated("head"), "template[/etc/embedmill/environment]")["content"])
    line = f"set -a; . {tmp_path}/environment; exec env -0"
    told = subprocess.run(["sh", "-c", line], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    read = dict(entry.split("=", 1) for entry in told.stdout.split("\0") if entry)
    assert {name: read[name] for name in SECRETS} == bags()["vault/embedmill/production"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("RAY_AUTH_TOKEN", None, "the data bag item has no RAY_AUTH_TOKEN"),
        ("RAY_AUTH_TOKEN", "c4n\nLD_PRELOAD=/x", "RAY_AUTH_TOKEN: a line break"),
    ],
)
def test_a_secret_that_is_missing_or_would_be_two_lines_is_refused(name: str, value: str | None, told: str) -> None:
    wrong = bags()
    wrong["vault/embedmill/production"][name] = value  # type: ignore[assignment]
    with pytest.raises(Refused) as refused:
        evaluate("head", "production", ATTRIBUTES, wrong)
    assert told in str(refused.value) and "c4n" not in str(refused.value)


def test_a_node_that_names_no_secret_reads_no_bag() -> None:
    without = {name: value for name, value in ATTRIBUTES.items() if name != "head"}
    assert evaluate("single", "production", without, {})["resources"]


@pytest.mark.parametrize("path", SECRET_KEYS, ids=".".join)
def test_a_secret_among_the_attributes_is_refused(path: tuple[str, ...]) -> None:
    nested: Any = "c4nary"
    for key in reversed(path):
        nested = {key: nested}
    with pytest.raises(Refused, match=re.escape(f"{'.'.join(path)} is a secret")) as told:
        evaluated("head", config=ATTRIBUTES["config"] | nested)
    assert "c4nary" not in str(told.value)


def test_properties_of_spark_are_secret_by_the_same_names_as_embedmill_masks_them() -> None:
    names = ["spark.ssl.keyPassword", "spark.hadoop.fs.s3a.secret.key", "fs.azure.account.key", "spark.executor.memory"]
    names += [
        "spark.sql.shuffle.partitions",
        "spark.hadoop.fs.s3a.access.key",
        "spark.kubernetes.authenticate.oauthToken",
    ]
    judged = ruby("given.map { |name| EmbedmillCookbook::Toml.secret?(%w[spark properties], name) }", names)
    assert judged == [is_secret(name) for name in names] and len(set(judged)) == 2


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(Refused, match="index.uri is a secret") as told:
        evaluated("head", config=ATTRIBUTES["config"] | {"index": {"uri": "http://root:hunter2@milvus:19530"}})
    assert "hunter2" not in str(told.value)


# -- the configuration -------------------------------------------------------------------------------------------------

HARD = {
    "plain": 'a "b" \\ c\td\ne',
    "other": "Büro 日本 \x00\x1f\x7f é $x #{1 + 1}",
    "numbers": [1, -2, 0.5, 1e-05, 1e22, 10**12],
    "truth": True,
    "lists": [["a", ""], [], [True]],
    "dotted.key and blank": {"inner": {"deep": [{"a": 1, "b": {"c": "x"}}, {"a": 2}]}},
    "empty": {},
    "many": [{"of": {"columns": {"id": "x"}}}, {}],
}


def test_attributes_come_back_from_the_toml_as_they_were() -> None:
    assert tomllib.loads(ruby("EmbedmillCookbook::Toml.render(given)", HARD)) == HARD


def test_a_key_without_a_value_is_left_out() -> None:
    assert ruby("EmbedmillCookbook::Toml.render(given)", {"a": None, "b": {"c": None}}) == "[b]"


@pytest.mark.parametrize("role", ["single", "head"])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_embedmill_reads_the_configuration(
    role: str, environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").mkdir()
    sources = [
        {"kind": "files", "uri": str(tmp_path), "team_id": "T1"},
        {
            "kind": "table",
            "uri": str(tmp_path / "rows"),
            "columns": {"id": "k", "text": "t", "created_at": "c", "team_id": "o"},
        },
    ]
    more = {"sources": sources, "spark": {"properties": {"spark.executor.memory": "1g"}}}
    found = evaluated(role, environment, config=more)
    (tmp_path / "embedmill.toml").write_text(one(found, "template[/etc/embedmill/embedmill.toml]")["content"])
    for name, value in bags()["vault/embedmill/production"].items():
        monkeypatch.setenv(name, "ab" * 32 if name.endswith("HASH_KEY") else value)
    config = load_config(tmp_path / "embedmill.toml")
    assert [source.kind for source in config.sources] == ["files", "table"]
    assert config.spark.properties == {"spark.executor.memory": "1g"}
    assert config.index.name == ("messages" if environment == "production" else "messages_staging")
    if role == "head":
        assert (config.ray.address, config.spark.master) == ("10.0.0.10:6379", "spark://10.0.0.10:7077")
        assert config.index.token.get_secret_value() == f"{CANARY} EMBEDMILL__INDEX__TOKEN"
    else:
        assert (config.ray.address, config.spark.master) == ("local", "local[*]")
    # All that it writes is where its units may write.
    [writable] = setting(units(found)["embedmill-run.service"], "ReadWritePaths")
    for path in (config.state.uri, config.registry.uri, config.model.cache, config.telemetry.textfile):
        assert any(path == folder or path.startswith(f"{folder}/") for folder in writable.split())


def test_a_configuration_is_looked_at_by_embedmill_before_it_is_put_in_place(resources: list[Resource]) -> None:
    found = [r for r in resources if r["name"] == "/etc/embedmill/embedmill.toml"]
    assert all(r["verify"] == "/opt/embedmill/current/bin/embedmill config --config %{path}" for r in found)
    # A worker reads none: what it needs comes with the work.
    assert bool(found) == any(r["name"] == "embedmill-run" for r in resources)
