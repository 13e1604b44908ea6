"""Measures our encoder and our runs side by side with what one would use instead, and writes docs/performance.md.

Every figure is a process of its own over the same texts with the same threads. Order changes hands from repeat to
repeat, so that a machine that slows down does so for everybody. README.md beside it says how to read the result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import chats
import performance
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from spine import MODEL, SEED, environment, machine, run_command

from embedding.models.packaged import model_path

HERE = Path(__file__).resolve().parent
GROUPS = ("encoders", "stage", "whole", "nothing", "memory")
THREADS = os.cpu_count() or 1

Figures = dict[str, float]
Measure = Callable[[], Figures]


def main() -> int:
    """Measure what was asked for, print, write the page; 1 where a verdict fails."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 140)
    result: dict[str, Any] = {"machine": machine(), "quick": options.quick, "groups": {}}
    if options.json and options.json.exists():
        result["groups"] = json.loads(options.json.read_text())["groups"]  # groups that are not measured now stay
    for file in filter(None, (options.json, options.page)):
        file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="encoders-") as folder:
        bench = Bench(options.peers, console, Path(folder, "models"), quick=options.quick)
        for group in options.only.split(","):
            result["groups"][group] = getattr(bench, group)(Path(folder, group))
            if options.json:
                options.json.write_text(json.dumps(result, indent=1))
    verdicts = performance.judge(result["groups"])
    if options.page:
        performance.write(options.page, result, verdicts)
    console.print(performance.tables(result["groups"]), markup=False)
    for verdict, text in verdicts:
        console.print(f"{verdict} {text}", soft_wrap=True, highlight=False)
    return int(any(verdict == "FAIL" for verdict, _ in verdicts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--only", default=",".join(GROUPS), metavar="GROUP,…", help=f"which of {', '.join(GROUPS)} (all of them)"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=Path(sys.executable),
        metavar="PYTHON",
        help="interpreter of the environment that the peers are installed in (this one)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here; other groups in it stay")
    parser.add_argument("--page", type=Path, metavar="FILE", help="the page to bring up to date")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the texts, once: does it work at all?")
    return parser.parse_args()


class Bench:
    """The groups of measurements. Each takes a folder of its own and returns its figures."""

    def __init__(self, peers: Path, console: Console, cache: Path, *, quick: bool) -> None:
        self._peers = peers.absolute()  # and not resolved: an environment's interpreter is a link
        self._console = console
        self._quick = quick
        self._model = model_path(MODEL)
        self._cache = cache

    # -- groups ------------------------------------------------------------------------------------------------------

    def encoders(self, folder: Path) -> dict[str, Any]:
        """Encoders alone, and what peers make of them, on 5,000 messages."""
        texts, _ = self._texts(folder, 5_000)
        first = self._ours("encoder", texts, self._cache, THREADS)
        measures = {
            "ours": lambda: self._ours("encoder", texts, self._cache, THREADS),
            "sentence_transformers": lambda: self._peer("sentence_transformers_encode", texts),
            "daft": lambda: self._peer("daft_embed_text", texts),
            "script": lambda: self._peer("plain_script", texts),
            "ray_recipe": lambda: self._peer("ray_recipe", texts),
            "ceiling": lambda: self._ours("ceiling", THREADS),
        }
        found = self._repeat(measures, 3)
        return {"messages": self._size(5_000), "convert_seconds": first["open_seconds"], "runs": found}

    def stage(self, folder: Path) -> dict[str, Any]:
        """The embed stage, in one process and on Ray, against the encoder alone, on 50,000 messages."""
        texts, _ = self._texts(folder, 50_000)
        measures = {
            "encoder": lambda: self._ours("encoder", texts, self._cache, THREADS),
            "stage": lambda: self._ours("stage", texts, self._cache, "alone"),
            "stage_on_ray": lambda: self._ours("stage", texts, self._cache, "ray"),
        }
        return {"messages": self._size(50_000), "runs": self._repeat(measures, 2)}

    def whole(self, folder: Path) -> dict[str, Any]:
        """From texts to an index, start-up counted, on 20,000 messages."""
        texts, export = self._texts(folder, 20_000)
        measures = {
            "run": lambda: self._run(folder, export, "auto"),
            "script": lambda: self._peer("plain_script", texts),
            "ray_recipe": lambda: self._peer("ray_recipe", texts),
        }
        first = measures["run"]()  # on a new machine it converts the model and leaves Spark's classes
        return {
            "messages": self._size(20_000),
            "first_seconds": first["seconds"],
            "runs": self._repeat(measures, 3),
        }

    def nothing(self, folder: Path) -> dict[str, Any]:
        """Everything but the encoder, on 200,000 messages."""
        _, export = self._texts(folder, 200_000)
        return {
            "messages": self._size(200_000),
            "runs": self._repeat({"run": lambda: self._run(folder, export, "hash")}, 1),
        }

    def memory(self, folder: Path) -> dict[str, Any]:
        """The encode actor's peak memory at two sizes."""
        runs: dict[str, Any] = {}
        for size in (10_000, 200_000):
            _, export = self._texts(folder / str(size), size)
            run = partial(self._run, folder / str(size), export, "auto", memory=True)
            runs |= self._repeat({str(size): run}, 1)
        return {"runs": runs}

    # -- measuring ---------------------------------------------------------------------------------------------------

    def _size(self, messages: int) -> int:
        return messages // 100 if self._quick else messages

    def _texts(self, folder: Path, messages: int) -> tuple[Path, Path]:
        """A Parquet file of so many messages, and the export that they come from."""
        export = chats.make_export(folder / "export", self._size(messages), self._model, seed=SEED + messages)
        texts = [m["text"] for f in sorted(export.folder.glob("channel-*/*.json")) for m in json.loads(f.read_text())]
        pq.write_table(pa.table({"text": texts}), folder / "texts.parquet")
        return folder / "texts.parquet", export.folder

    def _repeat(self, measures: dict[str, Measure], times: int) -> dict[str, list[Figures]]:
        found: dict[str, list[Figures]] = {name: [] for name in measures}
        names = list(measures)
        for turn in range(1 if self._quick else times):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                figures = measures[name]()
                found[name].append(figures)
                self._console.print(f"{name} {turn + 1}: {json.dumps(figures)}", highlight=False)
        return found

    def _ours(self, script: str, *arguments: object) -> Figures:
        return _answer([sys.executable, str(HERE / "ours" / f"{script}.py"), *map(str, arguments)])

    def _peer(self, script: str, texts: Path) -> Figures:
        return _answer([str(self._peers), str(HERE / "peers" / f"{script}.py"), str(texts)])

    def _run(self, folder: Path, export: Path, backend: str, *, memory: bool = False) -> Figures:
        """The command line from an empty state: seconds, also by stage, and with ``memory`` the actor's peak in MB."""
        shutil.rmtree(folder / "state", ignore_errors=True)
        config = folder / "embedmill.toml"
        config.write_text(
            f'[[sources]]\nkind = "slack_export"\nuri = "{export}"\nteam_id = "{chats.TEAM}"\n'
            f'[model]\nname = "{MODEL}"\nbackend = "{backend}"\ncache = "{self._cache}"\n'
            '[text]\nencoded = "{text}"\nconversations = false\n'  # as the peers encode them
            + ("[ray]\nmin_tokens = 0\n" if memory else "")  # an actor's is asked for
        )
        report, seen = run_command(config, folder / "logs", look=memory)
        actor = seen.by_label()["ray actor"] if memory else {}
        return {
            "seconds": seen.seconds,
            "rows": report["index_rows"]["after"],
            "tokens": report["tokens"]["embedded"],
            **({"actor_mb": actor["anon"], "actor_resident_mb": actor["rss"]} if memory else {}),
            **{f"{stage}_seconds": seconds for stage, seconds in report["seconds"].items()},
        }


def _answer(command: list[str]) -> Figures:
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"encoders: {Path(command[1]).name} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    # The last line is a program's own, unless a Ray that ends has said something after it.
    figures: Figures = json.loads([line for line in ended.stdout.splitlines() if line.startswith("{")][-1])
    return figures


if __name__ == "__main__":
    sys.exit(main())
