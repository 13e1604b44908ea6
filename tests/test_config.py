"""A wrong configuration ends in one line that names the file, the key and the fault, and only real faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding.errors import ConfigError
from jobs.config import load_config

GOOD = '[[sources]]\nkind = "files"\nuri = "."\nteam_id = "T1"\n'


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
        (GOOD.replace('"."', '"nope"'), "sources[0].uri: no such path: nope"),
        ("[model]\nactors = 1\n", "sources: Field required"),
        ("sources = []\n", "sources: Tuple should have at least 1 item after validation, not 0"),
    ],
)
def test_faults_name_the_key_and_nothing_else(tmp_path: Path, text: str, expected: str) -> None:
    assert fault(tmp_path, text) == expected


def test_a_wrong_type_names_the_key(tmp_path: Path) -> None:
    assert fault(tmp_path, GOOD + '[model]\nactors = "many"\n').startswith("model.actors: Input should be a valid int")
