"""Golden sets: questions and the documents that answer them, from JSONL, a log of clicks, or a BEIR folder.

A line that cannot be used is refused with its file, number, field and the fix; its text is never shown. What is read
here holds people's questions: nothing of ``Question.query`` may reach a log or an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from embedding.errors import ConfigError
from embedding.ids import document_id

_SHOWN = 3  # faults in an error
Word = Annotated[str, Field(pattern=r"\S")]
Grade = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]

FIXES = {
    "query": "give the words of the question",
    "team": "give the team's id, as sources name it",
    "channel": "give a channel's id or a list of them, or leave it out",
    "relevant": 'give {"DOC_ID": GRADE}, a grade being 0, 1, 2 or more, or a list of ids',
    "shown": "give the list of the ids that were shown",
    "clicked": "give the list of the ids that were clicked, each of them among those shown",
    "category": "give a word or a number, or leave it out",
    "id": "give a word or a number, or leave it out",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question as a team. ``relevant`` is the grade of each document that answers it, by document id."""

    id: str
    query: str
    team: str
    channels: tuple[str, ...]
    relevant: Mapping[str, int]
    category: str | None = None


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Questions in the order of the file. ``weak``: people's clicks say what is relevant, not judges."""

    name: str
    questions: tuple[Question, ...]
    weak: bool = False

    @property
    def digest(self) -> str:
        """Hex digest over ids, words, teams, channels and grades: two evaluations with one asked the same."""
        rows = [[q.id, q.query, q.team, q.channels, sorted(q.relevant.items())] for q in self.questions]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


class _Line(BaseModel):
    """What every line has; further keys are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str | int | None = None
    query: Word
    team: Word
    channel: Word | list[Word] | None = None
    category: str | int | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels, none for all."""
        return (self.channel,) if isinstance(self.channel, str) else tuple(self.channel or ())


class _Judged(_Line):
    relevant: dict[Word, Grade]

    @field_validator("relevant", mode="before")
    @classmethod
    def _graded(cls, given: object) -> object:
        return dict.fromkeys(given, 1) if isinstance(given, list) and all(isinstance(i, str) for i in given) else given


class _Clicks(_Line):
    shown: list[Word]
    clicked: list[Word]


def read_golden(path: Path) -> GoldenSet:
    """Read a JSONL file of judged questions or of clicks; which of them its first line tells.

    Clicks of one query, team and channel are added up: a document that was clicked is relevant, with grade 1. Raises
    ConfigError for a file that cannot be read, and for one with a bad line, naming the first of them.
    """
    lines = list(json_lines(path))
    if not lines:
        raise ConfigError(f"{path}: no question in it; give a JSON object a line, with query, team and relevant")
    weak = "clicked" in lines[0][1] and "relevant" not in lines[0][1]
    questions: list[Question] = []
    faults: list[str] = []
    for number, values in lines:
        try:
            questions.append(_question(number, values, _Clicks if weak else _Judged))
        except ValidationError as error:
            faults.append(f"line {number}: {_fault(error)}")
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    if faults:
        more = f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise ConfigError(f"{path}: {'; '.join(faults[:_SHOWN])}{more}")
    return GoldenSet(path.name, tuple(_impressions(questions) if weak else questions), weak)


GOLDEN = "give a golden set's file, or a BEIR folder"


def json_lines(path: Path, fix: str = GOLDEN) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number, from 1, and the object of each line; gzip where the name ends in .gz. Blank lines are skipped.

    Raises ConfigError for a file that cannot be read, which says ``fix``, and for a line that is no JSON object.
    """
    for number, line in text_lines(path, fix):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            raise ConfigError(f"{path}: line {number}: not JSON; give an object a line") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: line {number}: not an object; give {{...}} a line")
        yield number, values


def text_lines(path: Path, fix: str = GOLDEN) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line; gzip where the name ends in .gz.

    Raises ConfigError for a file that cannot be read.
    """
    import gzip

    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            yield from enumerate(lines, 1)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; save it in that encoding") from None
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or "not a gzip file"
        raise ConfigError(f"{path}: {why}; {fix}") from None


def _question(number: int, values: dict[str, object], form: type[_Judged] | type[_Clicks]) -> Question:
    line = form.model_validate(values)
    if isinstance(line, _Clicks):
        if set(line.clicked) - set(line.shown):
            raise ValueError(f"clicked: {FIXES['clicked']}")
        grades = dict.fromkeys(line.shown, 0) | dict.fromkeys(line.clicked, 1)
    elif isinstance(line, _Judged):
        grades = dict(line.relevant)
    relevant: dict[str, int] = {}
    for given, grade in grades.items():
        doc_id = document_id(given)
        if not doc_id.startswith(f"{quote(line.team, '')}/"):
            field = "relevant" if isinstance(line, _Judged) else "shown"
            raise ValueError(f"{field}: {given!r} is no document of team {line.team}; ids begin with {line.team}/")
        relevant[doc_id] = max(grade, relevant.get(doc_id, 0))
    name = str(number) if line.id is None else str(line.id)
    category = None if line.category is None else str(line.category)
    return Question(name, line.query, line.team, line.channels, relevant, category)


def _impressions(lines: Sequence[Question]) -> list[Question]:
    """One question for all lines of the same query, team and channels, called by the first of them."""
    together: dict[tuple[str, str, tuple[str, ...]], Question] = {}
    for line in lines:
        first = together.setdefault((line.query, line.team, line.channels), line)
        grades = {d: max(g, first.relevant.get(d, 0)) for d, g in line.relevant.items()}
        together[line.query, line.team, line.channels] = replace(first, relevant={**first.relevant, **grades})
    return list(together.values())


def _fault(error: ValidationError) -> str:
    """The first field that is wrong and its fix; pydantic's own message would quote the value."""
    [*_, last] = sorted(str(found["loc"][0]) for found in error.errors(include_input=False, include_context=False))
    kind: Literal["missing", "wrong"] = "wrong"
    for found in error.errors(include_input=False, include_context=False):
        if found["loc"] == (last,) and found["type"] == "missing":
            kind = "missing"
    return f"{last}: {'is missing; ' if kind == 'missing' else ''}{FIXES[last]}"
