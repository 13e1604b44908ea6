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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
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
