"""A package from outside adds a source, an encoder, an index and a file format, as ``docs/extending.md`` says.

The package stands in ``tests/support/toy_extension``, with the metadata that pip would write, and is found by its
folder on Python's path alone: by the command, Spark's workers, the isolated reader and Ray's actors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.workspace import TEAM

TOY = ROOT / "tests" / "support" / "toy_extension"
CONFIG = f"""
[[sources]]
kind = "notes"
uri = "notes"
team_id = "{TEAM}"
channel = "diary"
[[sources]]
kind = "files"
uri = "files"
team_id = "{TEAM}"
[model]
backend = "letters"
[spark]
master = "local[1]"
"""


def python(*arguments: str, folder: Path, extended: bool = True) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, in ``folder``, with the package on its path or not."""
    path = [str(TOY), str(ROOT)] if extended else [str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def command(*arguments: str, folder: Path) -> Any:
    ran = python("-m", "jobs.cli", *arguments, "--json", folder=folder)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return json.loads(ran.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two notes, a file of the toy format and a plain one, and the configuration of both sources."""
    for name in ("notes", "files"):
        (tmp_path / name).mkdir()
    for number, text in enumerate(["the harbour lockers are open", "a zebra jazz quiz"]):
        (tmp_path / "notes" / f"{number}.note").write_text(json.dumps({"at": 1_740_960_000_000_000, "text": text}))
    (tmp_path / "files" / "a.bin").write_bytes(b"%TOY\nBackwards\n" + b"the courier rings twice"[::-1])
    (tmp_path / "files" / "b.txt").write_text("a plain text beside it")
    (tmp_path / "embedmill.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.slow
def test_a_run_over_a_source_an_encoder_and_a_format_from_outside(folder: Path) -> None:
    ran = command("run", folder=folder)
    assert ran["documents"] == {"read": 4, "quarantined": 0} | ran["documents"]
    assert ran["chunks"]["embedded"] == 5  # and the conversation of both notes
    asked = ["search", "the harbour lockers are open", "--team", TEAM, "--k", "4", "--dense"]
    found = command(*asked, folder=folder)["hits"]
    assert found[0]["doc_id"] == f"{TEAM}/n/0" and found[0]["score"] == pytest.approx(1, abs=1e-3)
    assert found[0]["channel_id"] == "diary"
    [toy] = [hit for hit in found if hit["doc_id"] == f"{TEAM}/f/a.bin"]
    assert "the courier rings twice" in toy["text"]


SAYS = """
import sys
from pathlib import Path
from embedding.errors import ConfigError
from embedding.parsers import parse_file, parser_version
from indexers import open_index
from jobs.config import load_config
from jobs.sources import open_sources
try:
    config = load_config(Path("embedmill.toml"))
except ConfigError as error:
    sys.exit(str(error))
notes, files = open_sources(config)
print([d.text for p in notes.listing().partitions for d in notes.read(p)])
print(parse_file(Path("files/a.bin").read_bytes(), "a.bin").text.split("\\n"))
print(parser_version().partition(",")[2], files.reader.partition("toy=1")[1], type(open_index("toy", "", "x")).__name__)
"""


def test_what_is_registered_is_found_by_its_name(folder: Path) -> None:
    ran = python("-c", SAYS, folder=folder)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "['the harbour lockers are open', 'a zebra jazz quiz']",
        "['Backwards', '', 'the courier rings twice']",
        "toy=1 toy=1 ExactIndex",
    ]


def test_without_the_package_its_names_are_not_known(folder: Path) -> None:
    ran = python("-c", SAYS, folder=folder, extended=False)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "sources[0]: Input tag 'notes' found" in ran.stderr and "model.backend: 'letters' is not" in ran.stderr


def test_a_key_that_the_section_has_not_is_named(folder: Path) -> None:
    (folder / "embedmill.toml").write_text(CONFIG.replace('channel = "diary"', 'room = "diary"'))
    ran = python("-c", SAYS, folder=folder)
    assert "sources[0].room: unknown key" in ran.stderr


def test_an_extension_that_cannot_be_imported_is_named(folder: Path) -> None:
    metadata = folder / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[embedmill.extensions]\nbroken = no_such_module\n")
    ran = python("-c", SAYS, folder=folder)  # whose folder is on the path too
    assert "extension broken (no_such_module) cannot be imported" in ran.stderr and "Traceback" not in ran.stderr
