"""The measurement of GPUs runs to its end without one, so that it works on the day that there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RATES = {"tokens_per_second", "messages_per_second"}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # as from a clone
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    return subprocess.run(command, env=given, cwd="/", capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_every_part_is_measured_with_a_tiny_model(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    ended = _run("--tiny", "--seconds", "800", "--json", str(tmp_path / "gpu.json"), "--page", str(page))
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert set(result) == {"machine", "model", "messages", "tiny", "parts"}
    assert set(result["machine"]) == {"card", "cuda", "cores", "packages"}
    parts = result["parts"]
    assert list(parts) == ["ceiling", "gate", "encoder", "sentence_transformers", "tests", "stage"]
    assert not [name for name, part in parts.items() if "skipped" in part or "failed" in part]

    assert all(speed > 0 for speed in parts["ceiling"]["tflops"].values())
    passed = {kind for kind, judged in parts["gate"]["precisions"].items() if judged["passed"]}
    rows = parts["encoder"]["rows"]
    assert "f32" in passed and {row["precision"] for row in rows} == passed
    assert {row["layout"] for row in rows} >= {"padded"} and len({row["batch_tokens"] for row in rows}) > 1
    for row in rows:
        assert row["tokens_per_second"] > row["messages_per_second"] > 0
        assert (row["padding"] > 0) == (row["layout"] == "padded")
        assert {"precision", "peak_mb", "of_ceiling"} <= set(row)
    assert any(row["of_ceiling"] for row in rows)
    assert set(parts["encoder"]["with_texts"]) == RATES
    assert RATES | {"precision", "batch_texts", "peak_mb"} == set(parts["sentence_transformers"]["best"])
    assert sum(parts["tests"]["counts"].values()) >= 18
    assert [set(row) for row in parts["stage"]["rows"]] == [RATES | {"shard_tokens", "actors", "encoding"}]

    written = page.read_text()
    assert "Not measured yet" not in written and result["machine"]["card"] in written
    assert written.count("| embed stage through Ray,") == 1 and "## Filters by visibility" in written


@pytest.mark.slow
def test_a_part_for_which_no_time_is_left_is_skipped_with_the_reason(tmp_path: Path) -> None:
    ended = _run("--tiny", "--seconds", "0", "--json", str(tmp_path / "gpu.json"))
    assert ended.returncode == 0, ended.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [part["skipped"] for part in parts.values()] == ["too little time is left"] * 6
    assert "- stage: skipped, too little time is left." in ended.stdout


@pytest.mark.slow
def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    """Ray, pytest and sentence-transformers hidden: what does not need them is measured."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\n\nclass Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('ray', 'pytest', 'sentence_transformers'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n\n\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    code = f"import runpy, sys; sys.argv = ['gpu.py', '--tiny', '--json', {str(tmp_path / 'gpu.json')!r}]; "
    code += f"sys.path[:0] = [{str(ROOT / 'benchmarks')!r}]; runpy.run_path({str(ROOT / 'benchmarks/gpu.py')!r}, run_name='__main__')"
    given = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert parts["encoder"]["skipped"] == "sentence_transformers is not installed"
    assert (
        parts["stage"]["skipped"] == "ray is not installed" and parts["tests"]["skipped"] == "pytest is not installed"
    )
    assert parts["ceiling"]["tflops"]
