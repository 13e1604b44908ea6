"""What stands before a query and before a document: the model's own prompts, or those of the configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedding.errors import ConfigError

Purpose = Literal["document", "query"]
_FILE = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True)
class PromptOverrides:
    """``model.query_prompt`` and ``model.document_prompt``: "" is no prompt, None is the model's own."""

    query: str | None = None
    document: str | None = None


def saved_settings(path: Path) -> dict[str, Any]:
    """What a model's folder says of the model as a whole; empty where it says nothing.

    Raises OSError and ValueError where it cannot be read.
    """
    file = path / _FILE
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except ValueError:
        raise ValueError(f"{_FILE} is not JSON") from None


def prompts_of(path: Path, overrides: PromptOverrides | None = None) -> tuple[str, str]:
    """What stands before a query and before a document. Raises ConfigError for a prompt of another use.

    As ``encode_query`` and ``encode_document`` of sentence-transformers 6.2 apply them. Others that a folder may hold
    are for other tasks; two are refused, because a reader of the folder would take them for a document's and they are
    not: one that is called "passage" or "corpus", and a default prompt. ``overrides`` say what is meant.
    """
    asked = overrides or PromptOverrides()
    said = saved_settings(path)
    prompts = {name: text or "" for name, text in (said.get("prompts") or {}).items()}
    if odd := sorted(name for name, text in prompts.items() if not isinstance(text, str)):
        raise ConfigError(f"model.name: the model's prompt {odd[0]!r} is no text; mend its {_FILE}")
    query = prompts.get("query", "") if asked.query is None else asked.query
    if asked.document is not None:
        return query, asked.document
    document, default = prompts.get("document", ""), said.get("default_prompt_name")
    meant = 'set model.document_prompt to the text that it puts before documents ("" for none)'
    if default and prompts.get(default, "") != document:
        raise ConfigError(
            f"model.name: the model's default prompt {default!r} is not its prompt for documents; {meant}"
        )
    for name in ("passage", "corpus"):
        if prompts.get(name, "") not in ("", document):
            raise ConfigError(f"model.name: the model's prompt {name!r} is not its prompt for documents; {meant}")
    return query, document
