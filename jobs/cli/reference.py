"""``python -m jobs.cli.reference [FOLDER]``: write the pages that are made from the models, into ``docs/``.

``schemas/NAME.json`` is the JSON schema of what a command prints with ``--json``. A test fails where a page in
``docs/`` is not what this makes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from jobs.bodies import BODIES

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


def pages() -> dict[str, str]:
    """The text of every page, by its path in the folder of the documentation."""
    return {f"schemas/{name}": text for name, text in schemas().items()}


def write(folder: Path) -> None:
    """Write every page, in place of the one that is there."""
    for name, text in pages().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
