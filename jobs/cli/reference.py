"""``python -m jobs.cli.reference [FOLDER]``: write the pages that are made from the models, into ``docs/``.

``schemas/NAME.json`` is the JSON schema of what a command prints with ``--json``, ``configuration.md`` names every
key. A test fails where a page in ``docs/`` is not what this makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, SecretStr
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from embedding.encoders.spec import Batch, Endpoint, Fallback, RemoteSettings
from jobs.bodies import BODIES
from jobs.config import Config
from jobs.config_fields import ReadStorage, Storage
from jobs.config_sections import RERANKERS, Model, Search, StateTarget
from jobs.metrics.series import PREFIX, SERIES
from jobs.serve.metrics import PREFIX as SERVE_PREFIX
from jobs.serve.metrics import SERIES as SERVE_SERIES
from jobs.serve.metrics import Series as Served

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Schema(GenerateJsonSchema):
    """Without titles that repeat a key; a key that may be left out is never null."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def model_field_schema(self, schema: core_schema.ModelField) -> JsonSchemaValue:
        found = super().model_field_schema(schema)
        if schema.get("serialization_exclude_if") is None:
            return found
        [of] = [one for one in found.pop("anyOf") if one != {"type": "null"}]
        del found["default"]
        return {**of, **found}


def schemas() -> dict[str, str]:
    """The text of each schema, by file name."""
    found = {}
    for command, body in BODIES.items():
        made = body.model_json_schema(mode="serialization", schema_generator=_Schema)
        head = {
            "$schema": DIALECT,
            "title": f"embedmill {command} --json" if command != "error" else "embedmill: error",
        }
        found[f"{command}.json"] = json.dumps(head | {k: v for k, v in made.items() if k != "title"}, indent=2) + "\n"
    return found


HEAD = """# Configuration

Every key of `embedmill.toml`, its default and its unit. This page is made from `jobs/config_*.py` by
`make docs-generate`.

An unknown key is an error. `EMBEDMILL__SECTION__KEY` in the environment goes before the file, for example
`EMBEDMILL__INDEX__TOKEN`. Relative paths are taken from the folder of the file. `embedmill config` shows what is in
force and where it comes from, secrets masked. A key without a default has to be given where its section is.
"""


def configuration() -> str:
    """The page of all keys."""
    parts = [HEAD]
    sources = get_args(get_args(get_args(Config.model_fields["sources"].annotation)[0])[0])
    for source in sources:
        kind = get_args(source.model_fields["kind"].annotation)[0]
        parts.append(_section(f'[[sources]], kind = "{kind}"', source))
        if "columns" in source.model_fields:
            parts.append(_section("[sources.columns]", source.model_fields["columns"].annotation))
    parts.append(_section("[sources.storage], [model.storage]", ReadStorage))
    for name, section in Config.model_fields.items():
        if isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel):
            parts.append(_section(f"[{name}]", section.annotation))
            if section.annotation is Model:
                parts += [_table(title, of.__doc__ or "", list(_remote(of))) for title, of in _REMOTE.items()]
            if section.annotation is Search:
                parts += [_section(f'[search.rerank], kind = "{kind}"', of) for kind, of in RERANKERS.items()]
            if section.annotation is StateTarget:
                parts.append(_section("[state.storage]", Storage))
    return "\n".join(parts)


def _section(title: str, section: type[BaseModel]) -> str:
    keys = []
    for name, field in section.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = "" if field.is_required() else _shown(field.default)
        keys.append((name, field.description or "", default, str(extra.get("unit", ""))))
    return _table(title, section.__doc__ or "", keys)


_REMOTE = {"[model.remote]": RemoteSettings, "[[model.remote.fallbacks]]": Fallback, "[model.remote.batch]": Batch}


def _remote(of: type[Endpoint | Batch]) -> Iterator[tuple[str, str, str, str]]:
    for field in fields(of):
        default = "" if field.default is MISSING else _shown(field.default)
        yield field.name, field.metadata["about"], default, field.metadata.get("unit", "")


def _table(title: str, meaning: str, keys: list[tuple[str, str, str, str]]) -> str:
    first = meaning.split("\n\n")[0].replace("\n    ", " ").strip()
    rows = [f"| `{name}` | {about.replace('|', '/')} | {default} | {unit} |" for name, about, default, unit in keys]
    return "\n".join(
        [f"## `{title}`", "", first, "", "| key | meaning | default | unit |", "| --- | --- | --- | --- |", *rows, ""]
    )


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        return "see below"
    return "none" if value is None else f"`{json.dumps(value)}`"


def metrics() -> str:
    """The page of all series."""
    head = (
        "# Metrics\n\nEvery series that Prometheus is told; those in `_total` are counters, the others gauges or,\n"
        "where that is said, histograms. Made by `python -m jobs.cli.reference`; [telemetry.md](telemetry.md) says\n"
        "how they get there. Beside its labels each has `index`.\n"
    )
    runs = [(PREFIX + one.name, one.about, one.labels) for one in SERIES]
    serving = "Of `jobs/serve/metrics.py`, at `/metrics`. On Ray Serve each has `replica` too."
    serve = [(SERVE_PREFIX + one.name, _about(one), one.labels) for one in SERVE_SERIES]
    return "\n".join(
        [
            head,
            "## Runs\n\nOf `jobs/metrics/series.py`.\n",
            *_series(runs),
            f"\n## The query service\n\n{serving}\n",
            *_series(serve),
            "",
        ]
    )


def _about(one: Served) -> str:
    return f"{one.about.removesuffix('.')} (a histogram)." if one.buckets else one.about


def _series(rows: Iterable[tuple[str, str, tuple[str, ...]]]) -> list[str]:
    shown = [f"| `{name}` | {about} | {', '.join(f'`{label}`' for label in labels)} |" for name, about, labels in rows]
    return ["| series | meaning | labels |", "| --- | --- | --- |", *shown]


def pages() -> dict[str, str]:
    """The text of every page, by its path in the folder of the documentation."""
    return {"configuration.md": configuration(), "metrics.md": metrics()} | {
        f"schemas/{name}": text for name, text in schemas().items()
    }


def write(folder: Path) -> None:
    """Write every page, in place of the one that is there."""
    for name, text in pages().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
