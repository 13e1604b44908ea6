"""The sources of the model-based test, on disk and as dictionaries: two teams' exports, an old snapshot, and files."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from embedding import ids
from tests.support.model import DAY_US, Part, Row, SourceNow
from tests.support.workspace import TEXT

DAYS = ("2025-03-03", "2025-03-04", "2025-03-10")
FIRST = {"2025-03-03": 1_740_960_000, "2025-03-04": 1_741_046_400, "2025-03-10": 1_741_564_800}
CHANNELS = ("C1", "C2")
FILES = ("plan.txt", "minutes.txt")
# In the order of the configuration: of two copies of one version the later source's counts.
EXPORTS = {"export": "T01", "other": "T02", "archive": "T01"}
CONFIG = (
    "".join(
        f'[[sources]]\nkind = "slack_export"\nuri = "{name}"\nteam_id = "{team}"\n' for name, team in EXPORTS.items()
    )
    + '[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "T01"\n[model]\nbackend = "hash"\nshard_tokens = 40\n'
    + TEXT
    + '[index]\nshard_rows = 3\n[spark]\nmaster = "local[2]"\n'
)

Cut = Callable[[str, str], dict[str, str]]  # chunk texts by id, of a document's id and text


@dataclass
class Export:
    """An export: text and time of the last edit (µs, None where unedited) by ts, of each channel's days."""

    names: dict[str, str] = field(default_factory=lambda: {c: f"room-{c.lower()}" for c in CHANNELS} | {"C9": "always"})
    said: dict[tuple[str, str], dict[str, tuple[str, int | None]]] = field(default_factory=dict)
    torn: set[tuple[str, str]] = field(default_factory=set)


class Sources:
    """What happens to the sources. Every change is on disk when it returns."""

    def __init__(self, root: Path, cut: Cut) -> None:
        self.root = root
        self.cut = cut
        self.exports = {name: Export() for name in EXPORTS}
        self.files: dict[str, str] = {}
        self.clock = 0
        self.edited = 0
        (root / "files").mkdir(parents=True)
        (root / "embedmill.toml").write_text(CONFIG)
        for name, export in self.exports.items():
            (root / name).mkdir()
            self._say(name, "C9", DAYS[0], "a root that is empty is an error")
            for channel in export.names:
                (root / name / export.names[channel]).mkdir(exist_ok=True)
            self._write_channels(name)
        self.snapshots = [copy.deepcopy(self.exports["archive"])]
        self.write_file("always.txt", "A root that is empty is an error.")

    # -- changes -------------------------------------------------------------------------------------------------------

    def post(self, name: str, channel: str, day: str, texts: list[str]) -> None:
        for text in texts:
            self._say(name, channel, day, text)

    def messages(self, name: str) -> list[tuple[str, str, str]]:
        """Channel, day and ts of what can be edited."""
        said = self.exports[name].said
        return [(c, day, ts) for (c, day), found in sorted(said.items()) if c != "C9" for ts in sorted(found)]

    def edit(self, name: str, at: tuple[str, str, str], text: str) -> None:
        self.edited = max(self.edited + 1, time.time_ns() // 1000)
        self.exports[name].said[at[:2]][at[2]] = (text, self.edited)
        self._write_day(name, *at[:2])

    def delete(self, name: str, at: tuple[str, str, str]) -> None:
        del self.exports[name].said[at[:2]][at[2]]
        self._write_day(name, *at[:2])

    def drop_day(self, name: str, channel: str, day: str) -> None:
        export = self.exports[name]
        if export.said.pop((channel, day), None) is not None:
            export.torn.discard((channel, day))
            (self.root / name / export.names[channel] / f"{day}.json").unlink()

    def tear(self, channel: str, day: str, torn: bool) -> None:
        """Leave half a file, or make it whole again."""
        export = self.exports["export"]
        if (channel, day) in export.said:
            (export.torn.add if torn else export.torn.discard)((channel, day))
            self._write_day("export", channel, day)

    def rename(self, name: str, channel: str, new: str) -> None:
        export = self.exports[name]
        if new not in export.names.values():
            shutil.move(self.root / name / export.names[channel], self.root / name / new)
            export.names[channel] = new
            self._write_channels(name)

    def snapshot(self) -> None:
        """Keep a copy of the first team's export as it is, for a later ``replay``."""
        kept = copy.deepcopy(self.exports["export"])
        kept.torn.clear()
        self.snapshots.append(kept)

    def replay(self, number: int) -> None:
        """Put an old snapshot beside the live export; 0 is the newest."""
        shutil.rmtree(self.root / "archive")
        export = self.exports["archive"] = copy.deepcopy(self.snapshots[-1 - number % len(self.snapshots)])
        for folder in export.names.values():
            (self.root / "archive" / folder).mkdir(parents=True)
        self._write_channels("archive")
        for channel, day in export.said:
            self._write_day("archive", channel, day)

    def write_file(self, name: str, text: str) -> None:
        self.files[name] = text
        (self.root / "files" / name).write_text(text)

    def remove_file(self, name: str) -> None:
        if self.files.pop(name, None) is not None:
            (self.root / "files" / name).unlink()

    def move_file(self, old: str, new: str) -> None:
        if old in self.files and old != new:
            self.files[new] = self.files.pop(old)
            (self.root / "files" / old).replace(self.root / "files" / new)

    def _say(self, name: str, channel: str, day: str, text: str) -> None:
        self.clock += 1
        ts = f"{FIRST[day] + self.clock}.000100"
        self.exports[name].said.setdefault((channel, day), {})[ts] = (text, None)
        self._write_day(name, channel, day)

    def _write_day(self, name: str, channel: str, day: str) -> None:
        export = self.exports[name]
        said = [
            {"type": "message", "user": "U1", "text": text, "ts": ts}
            | ({"edited": {"user": "U1", "ts": f"{at // 1_000_000}.{at % 1_000_000:06}"}} if at else {})
            for ts, (text, at) in sorted(export.said[channel, day].items())
        ]
        whole = json.dumps(said)
        file = self.root / name / export.names[channel] / f"{day}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(whole[: max(1, len(whole) // 2)] if (channel, day) in export.torn else whole)

    def _write_channels(self, name: str) -> None:
        listed = [{"id": c, "name": n} for c, n in self.exports[name].names.items()]
        (self.root / name / "channels.json").write_text(json.dumps(listed))

    # -- as the model sees them ----------------------------------------------------------------------------------------

    def now(self) -> list[SourceNow]:
        """Every source, in the order of the configuration."""
        found = [SourceNow(team, "message", self._days(name, team)) for name, team in EXPORTS.items()]
        return [*found, SourceNow("T01", "file", self._files())]

    def _days(self, name: str, team: str) -> dict[str, Part]:
        export, parts = self.exports[name], {}
        for (channel, day), said in export.said.items():
            docs = {}
            for ts, (text, edited) in said.items():
                created = int(ts.replace(".", ""))
                doc = ids.message_id(team, channel, ts)
                docs[doc] = {
                    k: Row(team, channel, export.names[channel], "message", created, edited or created, piece)
                    for k, piece in self.cut(doc, text).items()
                }
            first = FIRST[day] * 1_000_000
            span = (first - DAY_US, first + 2 * DAY_US)
            parts[f"{channel}/{day}"] = Part(channel, span, docs, (channel, day) in export.torn)
        return parts

    def _files(self) -> dict[str, Part]:
        parts = {}
        for name, text in self.files.items():
            at = (self.root / "files" / name).stat().st_mtime_ns // 1000
            doc = ids.file_id("T01", name)
            rows = {k: Row("T01", "", "", "file", at, at, piece) for k, piece in self.cut(doc, text).items()}
            parts[name] = Part("", (at, at + 1), {doc: rows})
        return parts
