"""What each part of the text and of the search adds to the answers, by the product end to end.

    python benchmarks/relevance.py ../shared/data/chat/locomo [--json FILE] [--beir ../shared/data/retrieval/scifact]

Builds an index of the chats in three ways, by the command line alone, and asks the questions with `embedmill evaluate`:
each within its chat, and over all chats of the team. Prints nDCG@10 and recall@10 in percent with intervals (95 %, by
bootstrap over the questions). The chats are for measuring alone; see their README. With ``--beir`` also a BEIR folder,
indexed as a table by the default configuration.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Build:
    """How the texts of an index are made."""

    name: str
    text: str


@dataclass(frozen=True)
class Row:
    """A line of the table: a build, how it is searched, and what the search section says."""

    title: str
    build: str
    mode: str
    conversation_weight: float = 1.0


BUILDS = (
    Build("bare", 'encoded = "{text}"\nlexical = "{text}"\nconversations = false\n'),
    Build("author", 'lexical = "{author} {text}"\nconversations = false\n'),
    Build("default", ""),
)
ROWS = (
    Row("text, vectors", "bare", "dense"),
    Row("text, words", "bare", "lexical"),
    Row("text, hybrid", "bare", "hybrid"),
    Row("author and text, vectors", "author", "dense"),
    Row("author and text, words", "author", "lexical"),
    Row("author and text, hybrid", "author", "hybrid"),
    Row("date in the words too, words", "default", "lexical"),
    Row("date in the words too, hybrid", "default", "hybrid", 0.0),
    Row("conversations too, hybrid (the default)", "default", "hybrid"),
)


def embedmill(config: Path, *arguments: str, **settings: str) -> Any:
    """Run a command and return its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments, "--config", str(config), "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"embedmill {arguments[0]}: exit {done.returncode}: {done.stdout[:500]}")
    return json.loads(done.stdout)


def chats_source(chats: Path) -> str:
    """The configuration of the chats as a source."""
    return f'kind = "slack_export"\nuri = "{chats / "export"}"\nteam_id = "LOCOMO"\n'


def beir_source(folder: Path, table: Path) -> str:
    """Write a BEIR corpus as a Parquet table; returns the configuration of it as a source."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt") as lines:
        documents = [json.loads(line) for line in lines]
    bodies = [f"{one.get('title', '')}\n{one['text']}".strip() for one in documents]
    created = [1_700_000_000] * len(documents)
    pq.write_table(pa.table({"id": [one["_id"] for one in documents], "body": bodies, "created": created}), table)
    columns = '[sources.columns]\nid = "id"\ntext = "body"\ncreated_at = "created"\n'
    return f'kind = "table"\nuri = "{table}"\nteam_id = "BEIR"\n{columns}'


def build(source: str, folder: Path, one: Build) -> Path:
    """Index a source; returns the configuration."""
    folder.mkdir()
    config = folder / "embedmill.toml"
    config.write_text(
        f'[[sources]]\n{source}[index]\nkind = "milvus"\nuri = "index.db"\n[state]\nuri = "state"\n[text]\n{one.text}'
    )
    report = embedmill(config, "run")
    seconds, rows = report["seconds"]["total"], report["index_rows"]["after"]
    print(f"{one.name}: {rows:,} rows in {seconds:.0f} s", file=sys.stderr)
    return config


def cell(scores: Any) -> str:
    """nDCG@10 with its interval, and recall@10."""
    low, high = scores["intervals"]["ndcg@10"]
    return f"{100 * scores['ndcg@10']:.1f} ({100 * low:.1f}-{100 * high:.1f}) / {100 * scores['recall@10']:.1f}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chats", type=Path, help="folder with export/ and questions.jsonl")
    parser.add_argument(
        "--beir", type=Path, help="a BEIR folder (corpus.jsonl.gz, queries, qrels) to measure after them"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        questions = [json.loads(line) for line in (asked.chats / "questions.jsonl").read_text().splitlines()]
        for question in questions:
            question.pop("channel")
        over_all = work / "team.jsonl"
        over_all.write_text("".join(f"{json.dumps(question)}\n" for question in questions))
        golden = {"within a chat": asked.chats.resolve() / "questions.jsonl", "over the team": over_all}
        configs = {one.name: build(chats_source(asked.chats.resolve()), work / one.name, one) for one in BUILDS}
        found: dict[str, dict[str, Any]] = {}
        print("| what is searched | " + " | ".join(golden) + " |\n| --- | " + "--- | " * len(golden))
        for row in ROWS:
            cells = []
            for name, file in golden.items():
                body = embedmill(
                    configs[row.build],
                    "evaluate",
                    str(file),
                    "--mode",
                    row.mode,
                    EMBEDMILL__SEARCH__CONVERSATION_WEIGHT=str(row.conversation_weight),
                )
                scores = body["overall"]
                found.setdefault(row.title, {})[name] = scores
                cells.append(cell(scores))
            print(f"| {row.title} | " + " | ".join(cells) + " |", flush=True)
        if asked.beir:
            config = build(beir_source(asked.beir.resolve(), work / "corpus.parquet"), work / "beir", BUILDS[-1])
            body = embedmill(config, "evaluate", str(asked.beir.resolve()), "--team", "BEIR")
            found["beir"] = body["modes"]
            print(f"\n| {asked.beir.name} | nDCG@10 / recall@10 |\n| --- | --- |")
            for mode, scores in body["modes"].items():
                print(f"| {mode} | {cell(scores)} |", flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
