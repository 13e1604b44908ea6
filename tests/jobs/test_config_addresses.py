"""Addresses of the configuration: what cannot be one, or has a credential in it, is refused without being shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.config import load_config
from tests.support.command_line import invoke

GOOD = '[[sources]]\nkind = "files"\nuri = "s3://lake/files"\nteam_id = "T1"\n'
REMOTE = GOOD + '[model]\nbackend = "http"\n[model.remote]\nmodel = "m"\ndim = 4\n'
AWS = GOOD + '[model]\nbackend = "bedrock"\n[model.remote]\nmodel = "m"\ndim = 4\n'
FALLBACK = REMOTE + 'url = "http://h"\n[[model.remote.fallbacks]]\nbackend = "http"\nmodel = "m"\n'
RERANK = GOOD + '[search.rerank]\nkind = "http"\n'
WHERE = {
    "model.remote": (REMOTE, "url", "model: remote.url"),
    "aws": (AWS, "url", "model: remote.url"),
    "fallback": (FALLBACK, "url", "model: remote.fallbacks[0].url"),
    "rerank": (RERANK, "url", "search.rerank.url"),
    "registry": (GOOD + "[registry]\n", "uri", "registry.uri"),
    "pushgateway": (GOOD + "[telemetry]\n", "pushgateway", "telemetry.pushgateway"),
    "store": (GOOD + "[state.storage]\n", "endpoint", "state.storage.endpoint"),
    "milvus": (GOOD + "[index]\n", "uri", "index.uri"),
    "vespa": (GOOD + '[index]\nkind = "vespa"\n', "uri", "index.uri"),
}
NO_ADDRESS = (
    "ftp://h",
    "http://",
    "http://:9",
    "http://h:99999",
    "http://h:0",
    "http://h:x",
    "http://[::1",
    "http://a b",
)
CREDENTIALS = ("http://user:C4N4RY@h:9", "http://C4N4RY@h", "http://h/v1?key=C4N4RY", "http://h/v1#C4N4RY")


def said(tmp_path: Path, text: str) -> tuple[int, str]:
    file = tmp_path / "embedmill.toml"
    file.write_text(text)
    ran = invoke(["config", "--config", str(file)])
    return ran.exit_code, ran.output.strip()


@pytest.mark.parametrize("address", NO_ADDRESS)
@pytest.mark.parametrize("where", WHERE)
def test_what_is_no_address_of_a_server_is_one_line_with_the_key(where: str, address: str, tmp_path: Path) -> None:
    text, key, named = WHERE[where]
    code, line = said(tmp_path, f'{text}{key} = "{address}"\n')
    assert code == 2 and f"{tmp_path / 'embedmill.toml'}: {named}: give " in line
    assert "\n" not in line and "http(s)://" in line


@pytest.mark.parametrize("address", CREDENTIALS)
@pytest.mark.parametrize("where", [name for name in WHERE if name not in ("milvus", "vespa")])
def test_a_credential_in_an_address_is_refused_and_not_shown(where: str, address: str, tmp_path: Path) -> None:
    text, key, named = WHERE[where]
    code, line = said(tmp_path, f'{text}{key} = "{address}"\n')
    assert code == 2 and f"{tmp_path / 'embedmill.toml'}: {named}: give " in line
    assert "\n" not in line and "C4N4RY" not in line


@pytest.mark.parametrize(
    ("text", "key"), [(REMOTE + 'url = "http://h"\n', "remote"), (FALLBACK, "remote.fallbacks[0]")]
)
@pytest.mark.parametrize("name", ["C4N4RY PW", "sk-C4N4RY", "1C4N4RY", "C4N4RY=x"])
def test_a_key_in_place_of_the_variable_s_name_is_refused_and_not_shown(
    text: str, key: str, name: str, tmp_path: Path
) -> None:
    address = 'url = "http://h"\n' if "fallbacks" in key else ""
    code, line = said(tmp_path, f'{text}{address}api_key_env = "{name}"\n')
    assert code == 2 and f"model: {key}.api_key_env: give the name of an environment variable" in line
    assert "\n" not in line and "C4N4RY" not in line


@pytest.mark.parametrize(
    "address", ["http://h", "https://h.example:8080/v1/", "http://127.0.0.1:1", "http://[::1]:9/a_b"]
)
@pytest.mark.parametrize("where", ["model.remote", "aws", "fallback", "rerank", "registry", "milvus", "vespa"])
def test_an_address_with_or_without_port_and_path_is_taken(where: str, address: str, tmp_path: Path) -> None:
    text, key, _ = WHERE[where]
    (tmp_path / "embedmill.toml").write_text(f'{text}{key} = "{address}"\n')
    assert load_config(tmp_path / "embedmill.toml")


def test_without_an_address_of_aws_its_own_is_meant(tmp_path: Path) -> None:
    (tmp_path / "embedmill.toml").write_text(AWS)
    remote = load_config(tmp_path / "embedmill.toml").model.remote
    assert remote is not None and remote.url == ""
