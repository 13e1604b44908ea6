"""A search never gives a row of another team, whatever stands in its filters, and no error quotes a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from indexers import open_index
from indexers.base import Index, SearchRequest
from indexers.exact import ExactIndex
from indexers.vespa.package import write_package
from tests.indexers.test_index_contract import DIM, HOSTILE, V1, rows
from tests.support.vespa_server import VespaServer

# Ids that a careless filter takes for one another, for a pattern, or for a part of itself.
TEAMS = ["T0", "t0", "T0 ", "T%", "T_", "T*", "T\\", "T0'", 'T0"', "Té", *(text[:100] for text in HOSTILE)]
CHANNELS = ["", "C0", "c0", "C0' or '1' == '1", 'C0"] or team_id in ["T0', *HOSTILE]
KEYS = [f"{n}#0" for n in range(0, 440, 40)]
SECRET = "only its own team may read this"

_pieces = st.sampled_from(
    [
        '"',
        "'",
        "\\",
        " or ",
        " and ",
        "not ",
        "==",
        "!=",
        " in [",
        "]",
        "(",
        ")",
        "--",
        ";",
        "/*",
        "%",
        "like ",
        "team_id",
        "channel_id",
        "true",
        "{",
        "}",
        "@",
        "$",
        "\n",
        "\t",
        "T0",
        "C0",
        "userQuery()",
        "\u2028",
        "é",
        "\x7f",
    ]
)
injected = st.lists(_pieces, min_size=1, max_size=12).map("".join)
ids = st.one_of(injected, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40))


@dataclass
class Both:
    """An engine, and the exact index with the same rows."""

    engine: Index
    oracle: Index


@pytest.fixture(scope="module", params=["milvus", "vespa"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Every team has a row in every channel, all with the same vector, so that only the filter tells them apart."""
    folder = tmp_path_factory.mktemp("tenants")
    if request.param == "vespa":
        server: VespaServer = request.getfixturevalue("vespa_server")
        write_package(folder, "messages", {V1: DIM})
        server.plan()
        server.deploy(folder, empty=True)
        engine = open_index("vespa", server.uri, "messages")
    else:
        engine = open_index("milvus", str(folder / "index.db"), "messages")
    pairs = [(team, channel) for team in TEAMS for channel in CHANNELS]
    table = rows(
        [f"{n}#0" for n in range(len(pairs))],
        team_id=[t for t, _ in pairs],
        channel_id=[c for _, c in pairs],
        kind=["message" if n % 2 else "file" for n in range(len(pairs))],
        text=SECRET,
        lexical=SECRET,
        visibility=["private" if n % 3 else "public" for n in range(len(pairs))],
        vector=[np.ones(DIM, np.float32)] * len(pairs),
    )
    oracle = ExactIndex(name="messages")
    for index in (engine, oracle):
        index.create_version(V1, space_id="s", dim=DIM)
        index.upsert(V1, table)
    yield Both(engine, oracle)
    engine.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    team=st.one_of(st.sampled_from(TEAMS), ids),
    channels=st.lists(st.one_of(st.sampled_from(CHANNELS), ids), max_size=3),
    kind=st.one_of(st.none(), st.sampled_from(["message", "file"]), injected),
    k=st.integers(1, 1000),
    public=st.booleans(),
)
@example(team='T0" or team_id != "', channels=[], kind=None, k=1000, public=False)
@example(team="T0", channels=['C0"] or team_id in ["T%'], kind='file" or "1" == "1', k=1000, public=False)
@example(team="T0", channels=['C0"] or team_id in ["T%'], kind=None, k=1000, public=True)
def test_a_search_finds_rows_of_its_team_alone(
    both: Both, team: str, channels: list[str], kind: str | None, k: int, public: bool
) -> None:
    asked = SearchRequest(team, channels, () if kind is None else (kind,), k, public=public)
    vector = np.ones(DIM, np.float32)
    # All that the filter lets through: every row is as near as any other, so fewer than all of them are any of them.
    expected = both.oracle.search(V1, vector, replace(asked, k=1000))
    try:
        hits = both.engine.search(V1, vector, asked)
        matched = both.engine.match(V1, "may read this", asked)
        fetched = both.engine.fetch(V1, KEYS, asked)
    except Exception as error:  # whatever it is: refusing is safe, quoting is not
        assert SECRET not in str(error) and not expected, f"{type(error).__name__}: {error}"
        return
    assert {hit.team_id for hit in (*hits, *matched, *fetched)} <= {team}
    assert {hit.chunk_id for hit in matched} <= {hit.chunk_id for hit in expected} and len(matched) == len(hits)
    assert {hit.chunk_id for hit in fetched} == {hit.chunk_id for hit in expected} & set(KEYS)
    if kind in (None, "message", "file"):
        found = {hit.chunk_id for hit in hits}
        assert len(found) == len(hits) == min(k, len(expected))
        assert found <= {hit.chunk_id for hit in expected}
    else:
        assert not hits
