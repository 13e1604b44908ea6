"""What a model that is tuned on a corpus finds, through the commands: SciFact, whole.

    python benchmarks/training.py ../shared/data/retrieval/scifact [--set epochs=1] …

An index of the corpus with the packaged model, `evaluate` on the test questions; `train` on the train questions and
what answers them; `promote`, `reindex` to the challenger, `evaluate` again, against the first.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEAM = "T01"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a BEIR folder with qrels of train and test")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of [training], as in TOML")
    parser.add_argument("--train-only", action="store_true", help="no index, no evaluation of it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="training-") as made:
        folder = Path(made)
        corpus = corpus_of(options.data)
        _write(folder, corpus, options.set)
        pairs = _pairs(options.data, corpus, folder / "pairs.jsonl")
        print(f"{len(corpus):,} documents, {pairs:,} pairs", flush=True)
        if not options.train_only:
            _told("run", call(folder, "run"))
            golden_of(options.data, folder / "beir")
            before = call(folder, "evaluate", "beir", "--team", TEAM)
            print("base:", before["modes"]["dense"], flush=True)
            (folder / "before.json").write_text(json.dumps(before))
        _told("train", call(folder, "train", "--pairs", "pairs.jsonl", "--name", "scifact"))
        print("promote:", call(folder, "promote", "scifact", codes=(0, 4)), flush=True)
        if not options.train_only:
            call(folder, "reindex", "--to-model", "models:/scifact@challenger", "--activate")
            text = (folder / "embedmill.toml").read_text()
            (folder / "embedmill.toml").write_text(
                text.replace("[model]", '[model]\nname = "models:/scifact@challenger"')
            )
            after = call(folder, "evaluate", "beir", "--team", TEAM, "--against", "before.json", "--mode", "dense")
            print("tuned:", after["modes"]["dense"], after["against"]["modes"]["dense"]["ndcg@10"], flush=True)


def _told(name: str, body: dict[str, Any]) -> None:
    shown = {
        key: body[key] for key in ("chunks", "seconds", "steps", "peak_mb", "evaluation", "privacy") if key in body
    }
    print(f"{name}: {json.dumps(shown)}", flush=True)


def call(folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run a command in a folder; its object."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *words, "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in codes:
        raise SystemExit(f"{words[0]}: exit {done.returncode}: {done.stderr[-2000:]}")
    print(f"{words[0]}: {time.monotonic() - begun:.1f} s", flush=True)
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def corpus_of(data: Path) -> dict[str, tuple[str, str]]:
    """Titles and texts of a BEIR folder by id."""
    with gzip.open(data / "corpus.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["_id"]: (row["title"], row["text"]) for row in rows}


def write_table(corpus: dict[str, tuple[str, str]], file: Path) -> None:
    """A corpus as a table: a row for each document."""
    table = pa.table(
        {
            "id": list(corpus),
            "body": [f"{title} {text}" for title, text in corpus.values()],
            "created": pa.array([1_600_000_000_000_000] * len(corpus), pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, file)


def _write(folder: Path, corpus: dict[str, tuple[str, str]], settings: list[str]) -> None:
    write_table(corpus, folder / "corpus.parquet")
    (folder / "embedmill.toml").write_text(
        f'[[sources]]\nkind = "table"\nuri = "corpus.parquet"\nteam_id = "{TEAM}"\n'
        '[sources.columns]\nid = "id"\ntext = "body"\ncreated_at = "created"\n'
        '[text]\nencoded = "{text}"\nlexical = "{text}"\nconversations = false\n[model]\n[training]\n'
        + "".join(f"{setting}\n" for setting in settings)
    )


def _pairs(data: Path, corpus: dict[str, tuple[str, str]], file: Path) -> int:
    asked = {row["_id"]: row["text"] for row in map(json.loads, (data / "queries.jsonl").read_text().splitlines())}
    lines = [line.split("\t") for line in (data / "qrels" / "train.tsv").read_text().splitlines()[1:]]
    found = [
        {"anchor": asked[question], "positive": " ".join(corpus[document])}
        for question, document, grade in lines
        if int(grade) and document in corpus
    ]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in found))
    return len(found)


def golden_of(data: Path, made: Path) -> None:
    """The test questions of a BEIR folder as `evaluate` reads them, in a folder that is made."""
    (made / "qrels").mkdir(parents=True)
    with gzip.open(data / "corpus.jsonl.gz") as given, (made / "corpus.jsonl").open("wb") as out:
        shutil.copyfileobj(given, out)
    shutil.copy(data / "queries.jsonl", made)
    shutil.copy(data / "qrels" / "test.tsv", made / "qrels")


if __name__ == "__main__":
    main()
