"""The part of YQL and of ranking that the double knows, computed exactly."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.vespa_selection import ESCAPES
from tests.support.vespa_types import Refused, Type

_YQL = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>-?\d+L?)|(?P<parameter>@[\w.]+)
    |(?P<op><=|>=|[<>={}():,*])|(?P<word>[A-Za-z_][\w.]*))""",
    re.X,
)

_COMPARISONS = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
_LISTED = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|(?!['"])([^,]*))\s*,?""", re.S)


def statement(yql: str) -> tuple[str, list[tuple[str, str]]]:
    """The source and the tokens of the condition of a query."""
    found = re.fullmatch(r"\s*select \* from (?:sources )?([A-Za-z_]\w*) where (.*?);?\s*", yql, re.S)
    if found is None:
        raise Refused(400, f"Query not of the form that this double knows: {yql[:80]}")
    tokens, at, text = [], 0, found[2]
    while at < len(text.rstrip()):
        token = _YQL.match(text, at)
        if token is None:
            raise Refused(400, f"Could not parse the query at {text[at : at + 20]!r}")
        tokens.append((str(token.lastgroup), token[str(token.lastgroup)]))
        at = token.end()
    return found[1], tokens


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class Query:
    """One query over one type: which documents match, and how they rank."""

    def __init__(self, kind: Type, tokens: list[tuple[str, str]], params: dict[str, Any]) -> None:
        self._kind, self._tokens, self._params, self._at = kind, tokens, params, 0
        self.keys = list(kind.documents)
        self.words: list[str] = []
        self.vector = self._input()
        matches = self._expression(top=True)
        assert isinstance(matches, np.ndarray)
        self.matches = matches
        if self._at != len(tokens):
            raise Refused(400, f"Could not parse the query after {tokens[self._at - 1][1]!r}")

    def ranked(self, profile: str) -> list[tuple[str, float]]:
        """Every match with its score."""
        at = np.flatnonzero(self.matches)
        if profile in ("default", "unranked"):
            scores = np.zeros(len(at))
        elif profile in ("semantic", "semantic_dot"):
            scores = self._near(at)
        else:
            scores = self._bm25()[at]
        return [(self.keys[i], float(score)) for i, score in zip(at, scores, strict=True)]

    def _input(self) -> np.ndarray | None:
        value = self._params.get("input.query(q)")
        if value is None:
            return None
        vector = np.asarray(value["values"] if isinstance(value, dict) else value, np.float64)
        if vector.shape != (self._kind.dim,):
            raise Refused(400, f"Could not set 'ranking.features.query(q)': {vector.size} values, not {self._kind.dim}")
        return vector

    def _near(self, at: np.ndarray) -> np.ndarray:
        if self.vector is None:
            raise Refused(400, "Expected a tensor query(q)")
        if not len(at):
            return np.zeros(0)
        matrix = self._kind.vectors[[self._kind.slots[self.keys[i]] for i in at]].astype(np.float64)
        if self._kind.dot:
            return np.asarray(matrix @ self.vector)
        lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(self.vector)
        return np.divide(matrix @ self.vector, lengths, out=np.zeros(len(matrix)), where=lengths > 0)

    def _bm25(self) -> np.ndarray:
        texts = [Counter(_words(self._kind.documents[key].get(self._kind.words, ""))) for key in self.keys]
        lengths = np.array([sum(t.values()) for t in texts], float)
        scores, mean = np.zeros(len(texts)), lengths.mean() if len(texts) else 0.0
        for word in dict.fromkeys(self.words):
            often = np.array([t[word] for t in texts], float)
            known = np.count_nonzero(often)
            weight = math.log(1 + (len(texts) - known + 0.5) / (known + 0.5))
            scores += weight * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * lengths / (mean or 1)))
        return scores

    # The filters of a conjunction restrict what a nearest-neighbour search in it looks at, so they are evaluated first.

    def _expression(self, top: bool = False) -> np.ndarray | _Lazy:
        parts, operator = [self._term()], ""
        while self._peek().lower() in ("and", "or"):
            found = self._next()[1].lower()
            if operator and found != operator:
                raise Refused(400, "Mixed and and or without parentheses are not in this double")
            operator = found
            parts.append(self._term())
        combined = np.logical_or if operator == "or" else np.logical_and
        if not top:
            return (
                _Lazy(parts, combined)
                if any(isinstance(p, _Lazy | _Nearest) for p in parts)
                else combined.reduce(parts)
            )
        ready = [p for p in parts if not isinstance(p, _Lazy | _Nearest)]
        everything = np.ones(len(self.keys), bool)
        within = everything if operator == "or" else np.logical_and.reduce([everything, *ready])
        return combined.reduce([self._resolve(p, within) for p in parts])

    def _resolve(self, part: Any, within: np.ndarray) -> np.ndarray:
        if isinstance(part, _Lazy):
            return part.combined.reduce([self._resolve(p, within) for p in part.parts])
        if not isinstance(part, _Nearest):
            return np.asarray(part)
        found = np.zeros(len(self.keys), bool)
        candidates = np.flatnonzero(within)
        if len(candidates):
            nearest = candidates[np.argsort(-self._near(candidates), kind="stable")[: part.target]]
            found[nearest] = True
        return found

    def _term(self) -> Any:
        notes: dict[str, str] = {}
        if self._peek() == "(":
            self._next()
            inner = self._expression()
            self._expect(")")
            return inner
        if self._peek() == "{":
            notes = self._annotations()
        group, word = self._next()
        if group != "word":
            raise Refused(400, f"Could not parse the query at {word!r}")
        if word == "true":
            return np.ones(len(self.keys), bool)
        if word == "nearestNeighbor":
            self._expect("(")
            name = self._next()[1]
            self._expect(",")
            query = self._next()[1]
            self._expect(")")
            if name != "vector" or query != "q" or not self._kind.dim or "targetHits" not in notes:
                raise Refused(400, f"nearestNeighbor({name}, {query}) needs an attribute, an input and targetHits")
            return _Nearest(int(notes["targetHits"]))
        if word == "userInput":
            return self._user_input(notes)
        if word not in self._kind.attributes:
            raise Refused(400, f"Field {word} is not an attribute that can be searched in this double")
        operator = self._next()[1]
        if operator in _COMPARISONS:
            return self._compared(word, operator)
        if operator == "=" and self._kind.fields[word] == "bool":
            flag = self._next()[1] == "true"
            return np.array([self._kind.documents[key].get(word, False) == flag for key in self.keys], bool)
        if operator == "contains":
            wanted = {self._string()}
        elif operator == "in":
            wanted = self._list()
        else:
            raise Refused(400, f"Expected an operator after {word}, got {operator!r}")
        if "" in wanted:
            raise Refused(400, f"{word} {operator}: an empty term")
        held = [self._kind.documents[key].get(word, "") for key in self.keys]
        values = [value if isinstance(value, list) else [value] for value in held]  # of an array any entry will do
        if word not in self._kind.cased:
            wanted, values = {term.lower() for term in wanted}, [[str(v).lower() for v in value] for value in values]
        return np.array([not wanted.isdisjoint(value) for value in values], bool)

    def _compared(self, field: str, operator: str) -> np.ndarray:
        group, number = self._next()
        if group != "number" or self._kind.fields[field] not in ("int", "long"):
            raise Refused(400, f"{field} {operator} {number}: not numbers")
        if not number.endswith("L") and not -(2**31) <= int(number) < 2**31:
            raise Refused(400, f"{number} is no integer of 32 bits, and has no L")
        values = np.array([self._kind.documents[key].get(field, 0) for key in self.keys], np.int64)
        return np.asarray(_COMPARISONS[operator](values, int(number.rstrip("L"))))

    def _list(self) -> set[str]:
        """The terms of ``in (@name)``, as com.yahoo.search.yql.ParameterListParser reads them: quotes, no escapes."""
        self._expect("(")
        text, terms, at = self._string(), set(), 0
        self._expect(")")
        while at < len(text):
            term = _LISTED.match(text, at)
            if term is None:
                raise Refused(400, f"Expected a closing quote after {at}")
            terms.add(term[1] or term[2] or (term[3] or "").strip())
            at = term.end()
        return terms

    def _user_input(self, notes: dict[str, str]) -> np.ndarray:
        self._expect("(")
        text = self._string()
        self._expect(")")
        if notes.get("defaultIndex") != self._kind.words or notes.get("grammar") != "tokenize":
            raise Refused(400, "This double knows userInput with the indexed field and grammar tokenize")
        self.words = _words(text)
        if not self.words and notes.get("allowEmpty") != "true":
            raise Refused(400, "userInput is empty")
        return np.array(
            [bool(set(self.words) & set(_words(self._kind.documents[k].get(self._kind.words, "")))) for k in self.keys],
            bool,
        )

    def _annotations(self) -> dict[str, str]:
        notes = {}
        self._expect("{")
        while True:
            name = self._next()[1]
            self._expect(":")
            value = self._next()[1]
            notes[name] = value.strip("\"'")
            if self._next()[1] == "}":
                return notes

    def _string(self) -> str:
        group, text = self._next()
        if group == "parameter":
            if text[1:] not in self._params:
                raise Refused(400, f"No parameter {text}")
            return str(self._params[text[1:]])
        if group != "string":
            raise Refused(400, f"Expected a string, got {text}")
        return re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), text[1:-1])

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise Refused(400, "The query ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, text: str) -> None:
        if self._next()[1] != text:
            raise Refused(400, f"Expected {text!r} in the query, got {self._tokens[self._at - 1][1]!r}")


@dataclass(frozen=True)
class _Nearest:
    target: int


@dataclass(frozen=True)
class _Lazy:
    parts: list[Any]
    combined: Any
