"""Searches as Vespa is asked them: filters and words as parameters of a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedding.records import Metric
from indexers.base import SearchRequest
from indexers.vespa.package import PROFILES
from indexers.vespa.strings import searchable, storable

# What the nearest-neighbour search, or the words, bring together before they are ranked; more of them cost time only.
TARGET_HITS = 100


def search_body(version: str, vector: np.ndarray, request: SearchRequest, metric: Metric) -> dict[str, Any]:
    """The query of a search by the version's ``metric``; ``vector`` is float32 of shape (dim,).

    Every value is a parameter of its own, and none is part of the expression.
    """
    nearest = f"({{targetHits:{max(TARGET_HITS, request.k)}}}nearestNeighbor(vector, q))"
    query = {"ranking": PROFILES[metric], "input.query(q)": np.asarray(vector, dtype=np.float32).tolist()}
    return _body(version, nearest, request) | query


def match_body(version: str, column: str, text: str, request: SearchRequest) -> dict[str, Any]:
    """The query of a match by the words of a column; values are parameters, as those of ``search_body``."""
    # "tokenize" reads the text as words alone, so that nothing in it is taken for the query language.
    options = f'defaultIndex:"{column}",grammar:"tokenize",targetHits:{max(TARGET_HITS, request.k)},allowEmpty:true'
    return _body(version, f"({{{options}}}userInput(@words))", request) | {"ranking": "bm25", "words": storable(text)}


def _body(version: str, found_by: str, request: SearchRequest) -> dict[str, Any]:
    values: dict[str, Any] = {"team": searchable(request.team_id)}
    filters = ["team_id contains @team"]
    seen = ['visibility contains "public"'] if request.public else []
    seen += _any_of("channel_id", request.channels, values)
    filters += [f"({' or '.join(seen)})"] if seen else []
    listed = {
        "kind": request.kinds,
        "author_id": request.author_ids,
        "mentions": request.mentions,
        "language": request.languages,
    }
    for column, given in listed.items():
        terms = _any_of(column, given, values)
        filters += [f"({' or '.join(terms)})"] if terms else []
    if request.thread_id is not None:
        filters.append("thread_id contains @thread")
        values["thread"] = searchable(request.thread_id)
    if request.has_file:
        filters.append("has_file = true")
    if request.since is not None:
        filters.append(f"created_at >= {request.since}L")
    if request.until is not None:
        filters.append(f"created_at < {request.until}L")
    return {
        "yql": f"select * from {version} where {found_by} and {' and '.join(filters)}",
        "hits": request.k,
        "presentation.summary": "hit",
        # A search that ran out of time says so, instead of answering from the part it has searched.
        "ranking.softtimeout.enable": False,
    } | values


def _any_of(column: str, given: Sequence[str], values: dict[str, Any]) -> list[str]:
    """Conditions of which one must hold; adds their parameters to ``values``.

    One list of quoted values, however many there are. It knows no escapes, so what has a quote itself is a term.
    """
    wanted = [searchable(value) for value in dict.fromkeys(given)]
    listed = [value for value in wanted if '"' not in value]
    terms = []
    if listed:
        values[column] = ",".join(f'"{value}"' for value in listed)
        terms.append(f"{column} in (@{column})")
    for number, value in enumerate(value for value in wanted if '"' in value):
        values[f"{column}_{number}"] = value
        terms.append(f"{column} contains @{column}_{number}")
    return terms
