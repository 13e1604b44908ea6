"""A wrong configuration ends in one line that names the file, the key and the fault, and only real faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from embedding.errors import ConfigError
from jobs.cli.app import app
from jobs.config import Config, load_config

GOOD = '[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "T1"\n'


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """The folder that GOOD reads."""
    (tmp_path / "files").mkdir()


def fault(tmp_path: Path, text: str) -> str:
    file = tmp_path / "embedmill.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{file}: ")


def test_a_good_file_loads_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "embedmill.toml").write_text(GOOD)
    monkeypatch.setenv("EMBEDMILL__MODEL__ACTORS", "3")
    assert load_config(tmp_path / "embedmill.toml").model.actors == 3


def test_a_variable_that_is_misspelt_or_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("EMBEDMILL__MODLE__ACTORS", "3")
        said = fault(tmp_path, GOOD)
    assert said == "EMBEDMILL__MODLE__ACTORS: the configuration has no section 'modle'; is it model?"
    with monkeypatch.context() as patch:
        patch.setenv("EMBEDMILL_MODEL__ACTORS", "3")
        assert fault(tmp_path, GOOD).startswith("EMBEDMILL_MODEL__ACTORS: is it EMBEDMILL__MODEL__ACTORS?")
    monkeypatch.setenv("EMBEDMILL__MODEL__ACTORS", "many")
    assert fault(tmp_path, GOOD).startswith("EMBEDMILL__MODEL__ACTORS: model.actors: Input should be a valid integer")
    monkeypatch.setenv("EMBEDMILL__MODEL__ACTORS", "3")
    assert fault(tmp_path, GOOD + "[model]\nactor = 1\n").startswith("model.actor: unknown key")


def test_an_index_server_is_reached_by_keys_and_a_token_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "embedmill.toml"
    file.write_text(
        GOOD + '[index]\nuri = "https://milvus:19530"\ntls_ca = "ca.pem"\ndatabase = "search"\nwriters = 8\n'
    )
    monkeypatch.setenv("EMBEDMILL__INDEX__TOKEN", "s3cr3t")
    index = load_config(file).index
    assert (index.token.get_secret_value(), index.database, index.writers) == ("s3cr3t", "search", 8)
    assert "s3cr3t" not in repr(load_config(file)) and index.storage == "float32" and not index.hybrid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + '[index]\nstorage = "int8"\n', "index.storage: Input should be 'float32' or 'float16'"),
        (GOOD + "colour = 1\n", "sources[0].colour: unknown key; remove it or correct its spelling"),
        (GOOD + "[modle]\n", "modle: unknown key; remove it or correct its spelling"),
        (GOOD.replace('"files"\nteam', '"nope"\nteam'), "sources[0].uri: no such path: nope"),
        ("[model]\nactors = 1\n", "sources: Field required"),
        (
            GOOD + '[state]\nuri = "gs://lake/state"\n',
            "state.uri: gs:// is not supported; give a folder, or s3://bucket/prefix",
        ),
        (
            GOOD + '[state]\nuri = "s3://lake//state"\n',
            "state.uri: give a folder, or s3://bucket/prefix with letters, digits, '.', '_', '-' and '=' in the prefix, "
            "and single slashes",
        ),
        (GOOD.replace('"files"\nteam', '"a\\u0000b"\nteam'), "sources[0].uri: a path has no character of number 0"),
        (
            GOOD + '[search]\nrerank = "x"\n',
            "search.rerank: must be a table; write [search.rerank] and its keys below it",
        ),
        (GOOD + 'columns = "x"\n', "sources[0].columns: unknown key; remove it or correct its spelling"),
        ('sources = "x"\n', "sources: must be tables; write [[sources]] above the keys of each"),
        ("sources = []\n", "sources: Tuple should have at least 1 item after validation, not 0"),
    ],
)
def test_faults_name_the_key_and_nothing_else(tmp_path: Path, text: str, expected: str) -> None:
    assert fault(tmp_path, text) == expected


STORED = '[[sources]]\nkind = "files"\nuri = "{}"\nteam_id = "T1"\n[state]\nuri = "{}"\n'
IN_SOURCE = (
    "lies in sources[0].uri, so that each run would read what the one before it wrote; give it a place of its own"
)
AROUND = "holds sources[0].uri, and is for embedmill's own files alone; give it a place of its own"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + '[state]\nuri = "files/state"\n', f"state.uri: {IN_SOURCE}"),
        (STORED.format(".", "state"), f"state.uri: {IN_SOURCE}"),
        (STORED.format("files", "files"), f"state.uri: {IN_SOURCE}"),
        (STORED.format("link", "files/state"), f"state.uri: {IN_SOURCE}"),
        (STORED.format("files", "."), f"state.uri: {AROUND}"),
        (GOOD + '[index]\nuri = "files/milvus.db"\n', f"index.uri: {IN_SOURCE}"),
        (GOOD + '[registry]\nuri = "files/models"\n', f"registry.uri: {IN_SOURCE}"),
        (STORED.format("s3://lake/in", "s3://lake/in/state"), f"state.uri: {IN_SOURCE}"),
        (STORED.format("s3://lake", "s3://lake/state"), f"state.uri: {IN_SOURCE}"),
        (STORED.format("s3://lake/state/src/", "s3://lake/state"), f"state.uri: {AROUND}"),
    ],
)
def test_no_run_reads_what_it_writes(tmp_path: Path, text: str, expected: str) -> None:
    """A state below a source of files became documents of the next run, which wrote more of them."""
    (tmp_path / "link").symlink_to("files")
    (tmp_path / "files" / "models").mkdir()
    assert fault(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("source", "state"),
    [("s3://lake/in", "s3://lake/in2"), ("s3://lake/in", "s3://pond/in/state"), ("s3://lake/in", "files/state")],
)
def test_places_that_are_apart_may_be_alike(tmp_path: Path, source: str, state: str) -> None:
    (tmp_path / "embedmill.toml").write_text(STORED.format(source, state))
    assert load_config(tmp_path / "embedmill.toml").state.uri == state


def test_a_file_in_another_encoding_is_a_fault_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "embedmill.toml"
    file.write_bytes(GOOD.encode() + "# Büro\n".encode("cp1252"))
    with pytest.raises(ConfigError, match="not TOML: not UTF-8; save it in that encoding"):
        load_config(file)


def test_a_wrong_type_names_the_key(tmp_path: Path) -> None:
    assert fault(tmp_path, GOOD + '[model]\nactors = "many"\n').startswith("model.actors: Input should be a valid int")


# -- what is shown of it -----------------------------------------------------------------------------------------------

SECRETS = {
    "EMBEDMILL__SERVE__JWT_KEY": "s3cr3t-of-tokens-that-is-long-enough-0",
    "EMBEDMILL__INDEX__TOKEN": "tok-3f9a7c",
    "EMBEDMILL__STATE__HASH_KEY": "c0ffee42" * 8,
}
URIS = """
[index]
uri = "https://root:pa55w0rd-1@milvus:19530"
[model]
backend = "http"
[model.remote]
model = "m"
dim = 4
url = "https://host/path"
[ray]
address = "http://user:pa55w0rd-5@head:10001"
[spark.properties]
"spark.hadoop.fs.s3a.secret.key" = "pa55w0rd-6"
"spark.hadoop.fs.azure.account.key.x" = "pa55w0rd-7"
"spark.driver.extraJavaOptions" = "-Dx.trustStorePassword=pa55w0rd-8 -Dy=shown"
"spark.sql.ansi.enabled" = "true"
"""


@pytest.mark.parametrize("machine", [True, False], ids=["json", "text"])
def test_config_shows_what_is_in_force_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: bool
) -> None:
    file = tmp_path / "embedmill.toml"
    source = '[[sources]]\nkind = "table"\nuri = "s3://lake/rows"\nteam_id = "T1"\n'
    source += 'permalink = "https://u:pa55w0rd-2@host/path?api_key=pa55w0rd-3&sig=pa55w0rd-4"\n'
    columns = '[sources.columns]\nid = "i"\ntext = "t"\ncreated_at = "c"\n'
    file.write_text(source + columns + URIS)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EMBEDMILL__MODEL__ACTORS", "3")
    shown = CliRunner().invoke(app, ["config", "--config", str(file), *(["--json"] if machine else [])])
    assert shown.exit_code == 0, shown.output
    for secret in ("pa55w0rd", *SECRETS.values()):
        assert secret not in shown.output
    assert not [
        name for name, field in _fields(Config) if "SecretStr" in str(field) and f"EMBEDMILL__{name}" not in SECRETS
    ]
    if machine:
        said = {one["key"]: (one["value"], one["from"]) for one in json.loads(shown.stdout)["settings"]}
        assert said["model.actors"] == (3, "environment") and said["index.token"] == ("***", "environment")
        assert said["index.uri"] == ("https://***@milvus:19530", "file")
        assert said["limits.min_free_mb"] == (200, "default") and said["index.database"] == ("", "default")
        assert said["sources[0].uri"] == ("s3://lake/rows", "file")
        assert said["spark.properties.spark.sql.ansi.enabled"] == ("true", "file")
        assert said["spark.properties.spark.driver.extraJavaOptions"][0].endswith(" -Dy=shown")


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", kind
