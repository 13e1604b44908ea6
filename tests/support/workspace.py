"""A small Slack export, a folder of files and a configuration that a test can change and run over."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jsonschema import Draft202012Validator

from jobs.config import load_config
from jobs.extract.changes import partition_fingerprint
from jobs.pipeline import Pipeline
from jobs.sources import open_sources
from jobs.state.integrity import record_versions
from jobs.state.staging import Staged, commit_staged
from jobs.state.store import State
from jobs.telemetry.progress import Progress
from tests.support.command_line import invoke
from tests.support.paths import ROOT

TEAM = "T01"
DAY = "2025-03-03"
START = 1_740_960_000  # 2025-03-03T00:00:00Z

# What is encoded and searched is the message alone: a row of the index for each, and no text that others decide.
TEXT = '[text]\nencoded = "{text}"\nlexical = "{text}"\nconversations = false\n'

# In a message, a field that is not read. With 120 such messages a run leaves reading to Spark, with fewer it reads itself.
LARGE = {"padding": "x" * 9_000}

TEXTS = (
    "The parcel lockers at the harbour are open again",
    "Lunch is at noon in the big kitchen",
    "Please rotate the signing key before Friday",
    "The nightly backup failed on the second disk",
    "Our new colleague starts on the first of April",
    "The coffee machine wants cleaning",
)


def message(number: int, text: str, **more: Any) -> dict[str, Any]:
    """A plain message of user U1, ``number`` seconds into the day."""
    return {"type": "message", "user": "U1", "text": text, "ts": f"{START + number}.000100", **more}


def named_in(said: str, *names: str) -> list[str]:
    """Those of the names that begin a word of what was said: ``T01`` is a team, and no part of ``2025-03-03T01:00``."""
    return [name for name in names if re.search(rf"(?<![0-9A-Za-z]){re.escape(name)}", said)]


def writing(state: State) -> State:
    """The state for a test that writes without a lease, under the newest number that its tables have seen."""
    return state.for_writing(max(1, state.newest_fence()))


def folder_of(state: State) -> Path:
    """The folder of a state that is in one."""
    assert isinstance(state.root, Path)
    return state.root


def stage(folder: Path, **tables: pa.Table) -> Staged:
    """Stage tables, each in a folder of its name; one called "here" in the folder itself."""
    for name, table in tables.items():
        place = folder if name == "here" else folder / name
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, place / "part.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    return commit_staged(folder)


@cache
def _validator(command: str) -> Any:
    schema = json.loads((ROOT / "docs" / "schemas" / f"{command}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_schema(command: str, body: Any) -> None:
    """Raise ValidationError for a body that the published schema of the command refuses."""
    _validator(command).validate(body)


@dataclass
class Ran:
    """What a command ended with."""

    code: int
    body: Any
    err: str


class Workspace:
    """A folder with ``export``, ``files`` and ``embedmill.toml``; ``run`` and the like call the command line."""

    def __init__(self, root: Path, *, backend: str = "hash", files: bool = True) -> None:
        self.root = root
        self.export = root / "export"
        self.files = root / "files"
        self.config = root / "embedmill.toml"
        (self.export / "general").mkdir(parents=True)
        (self.export / "random").mkdir()
        self.files.mkdir()
        self.write_json("users.json", [{"id": "U1", "name": "ada", "profile": {"display_name": "Ada"}}])
        self.channels({"C1": "general", "C2": "random"})
        self.day("general", [message(n, text) for n, text in enumerate(TEXTS[:4])])
        self.day("random", [message(n, text) for n, text in enumerate(TEXTS[4:])])
        (self.files / "handbook.md").write_text("# Lockers\n\nA locker opens with the code from the app.\n")
        (self.files / "notes.txt").write_text("Call the courier when a door stays shut.\n")
        sources = f'[[sources]]\nkind = "slack_export"\nuri = "export"\nteam_id = "{TEAM}"\n'
        if files:
            sources += f'[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "{TEAM}"\n'
        self.config.write_text(sources + f'[model]\nbackend = "{backend}"\n[spark]\nmaster = "local[2]"\n{TEXT}')

    def write_json(self, name: str, value: Any) -> Path:
        path = self.export / name
        path.write_text(json.dumps(value))
        return path

    def channels(self, names: dict[str, str]) -> None:
        self.write_json("channels.json", [{"id": i, "name": n} for i, n in names.items()])

    def day(self, folder: str, messages: Any, day: str = DAY) -> Path:
        (self.export / folder).mkdir(exist_ok=True)
        return self.write_json(f"{folder}/{day}.json", messages)

    def messages(self, folder: str, day: str = DAY) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.export / folder / f"{day}.json").read_text())
        return found

    def rename(self, channel: str, old: str, new: str) -> None:
        shutil.move(self.export / old, self.export / new)
        channels = json.loads((self.export / "channels.json").read_text())
        self.channels({c["id"]: new if c["id"] == channel else c["name"] for c in channels})

    def call(self, *arguments: str) -> Ran:
        """Run a command with --json in this process, whose engines are shared: see ``invoke``."""
        result = invoke([*arguments, "--config", str(self.config), "--json"])
        body = json.loads(result.stdout) if result.stdout.strip() else None
        if body is not None:
            name = "-".join(arguments[:2]) if arguments[0] == "state" else arguments[0]
            check_schema("error" if "error" in body else name, body)
        return Ran(result.exit_code, body, result.stderr)

    def run(self, *arguments: str) -> Ran:
        return self.call("run", *arguments)

    def verify(self, *arguments: str) -> Ran:
        return self.call("verify", *arguments)

    def quarantine(self) -> dict[str, int]:
        """Counts by reason."""
        found: dict[str, int] = self.call("status").body["quarantine"]["reasons"]
        return found


def copied(space: Workspace, root: Path) -> Workspace:
    """A copy of a workspace, in which the sources are noted as read where and as they are now."""
    shutil.copytree(space.root, root, copy_function=shutil.copy2, ignore=shutil.ignore_patterns("engines*"))
    copy = Workspace.__new__(Workspace)
    copy.root, copy.export, copy.files = root, root / "export", root / "files"
    copy.config = root / "embedmill.toml"
    config = load_config(copy.config)
    state = writing(Pipeline(config, Progress()).state)
    now = {
        (source.source_id, p.key): partition_fingerprint(p)
        for source in open_sources(config)
        for p in source.listing().partitions
    }
    rows = state.read("sources").to_pylist()
    state.change("sources", [r | {"fingerprint": now[r["source_id"], r["partition"]], "_delete": False} for r in rows])
    record_versions(state.root)
    return copy


def counts(ran: Ran) -> dict[str, int]:
    """The chunk counts of a run, without the total and the unchanged, zeros left out."""
    return {k: v for k, v in ran.body["chunks"].items() if v and k not in ("total", "unchanged")}
