"""BEIR folders as golden sets: ``queries.jsonl`` and ``qrels/test.tsv``, and what the index calls their documents.

A BEIR id is of its corpus alone. Which document of the index it is depends on the source that read the corpus, so a
template says it: ``{team}/t/{id}`` for a table source whose id column is ``_id``, ``{team}/f/{id}.txt`` for a folder of
files. ``corpus.jsonl`` is not read.
"""

from __future__ import annotations

import string
from pathlib import Path
from urllib.parse import quote

from embedding.errors import ConfigError
from embedding.ids import bounded_id
from jobs.relevance.golden import GoldenSet, Question, json_lines, text_lines

DOC_ID = "{team}/t/{id}"
_QRELS = ("qrels/test.tsv", "qrels/test.tsv.gz")
_QUERIES = ("queries.jsonl", "queries.jsonl.gz")


def read_beir(folder: Path, *, team: str, doc_id: str = DOC_ID, channels: tuple[str, ...] = ()) -> GoldenSet:
    """Read a BEIR folder as questions of one team, in the order of ``queries.jsonl``; those that were judged.

    Raises ConfigError for a file that is missing, a bad line, and a template without ``{id}``.
    """
    _check_template(doc_id)
    grades = _judgements(_one_of(folder, _QRELS))
    queries = _one_of(folder, _QUERIES)
    questions = []
    for number, values in json_lines(queries):
        key, text = values.get("_id"), values.get("text")
        if not isinstance(key, str) or not key:
            raise ConfigError(f"{queries}: line {number}: _id: give the query's id, a word")
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{queries}: line {number}: text: give the words of the query")
        if key in grades:
            relevant = {document_name(doc_id, team, name): grade for name, grade in grades[key].items()}
            questions.append(Question(key, text, team, channels, relevant))
    if not questions:
        raise ConfigError(f"{queries}: no query of it is in qrels; give a folder whose files belong together")
    return GoldenSet(folder.name, tuple(questions))


def document_name(template: str, team: str, name: str) -> str:
    """The id in the index of the BEIR document ``name``, parts percent-encoded as sources do."""
    return bounded_id(template.format(team=quote(team, ""), id=quote(name, "")))


def _judgements(file: Path) -> dict[str, dict[str, int]]:
    """Grades by document, by query. The first line is a heading."""
    found: dict[str, dict[str, int]] = {}
    for number, line in text_lines(file):
        if number == 1 or not line.strip():
            continue
        parts = line.rstrip("\r\n").split("\t")
        if len(parts) != 3 or not parts[2].strip().isdecimal():
            raise ConfigError(f"{file}: line {number}: give query-id, corpus-id and an integer score, tabs between")
        found.setdefault(parts[0], {})[parts[1]] = int(parts[2])
    return found


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{folder}: no {names[0]} in it; give a BEIR folder, or a JSONL file")


def _check_template(template: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError:
        fields = set()
    if "id" not in fields or fields - {"id", "team"}:
        raise ConfigError(f"--doc-id: {template!r} must have {{id}}, and may have {{team}}: for example {DOC_ID}")
