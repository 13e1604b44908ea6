"""Golden sets: what is read, and that a bad line is named with its file, number, field and fix, never its text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from embedding.errors import ConfigError
from embedding.ids import file_id, row_id
from jobs.relevance.beir import read_beir
from jobs.relevance.golden import FIXES, read_golden

GOOD = {"query": "secret words", "team": "T1", "relevant": {"T1/m/C1/1": 2}}


def written(folder: Path, *lines: Any) -> Path:
    file = folder / "golden.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_a_line_is_a_question(tmp_path: Path) -> None:
    more = {"channel": "C1", "category": 3, "id": "q7", "relevant": ["T1/m/C1/1", "T1/m/C1/2#4"], "note": "left alone"}
    golden = read_golden(written(tmp_path, GOOD, "", GOOD | more, GOOD | {"channel": ["C1", "C2"]}))
    first, second, third = golden.questions
    assert (first.id, first.channels, first.relevant, first.category) == ("1", (), {"T1/m/C1/1": 2}, None)
    assert (second.id, second.channels, second.category) == ("q7", ("C1",), "3")
    assert second.relevant == {"T1/m/C1/1": 1, "T1/m/C1/2": 1}, "a list is of grade 1, a chunk stands for its document"
    assert (third.id, third.channels) == ("4", ("C1", "C2")) and not golden.weak


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "not JSON; give an object a line"),
        ("[1]", "not an object; give {...} a line"),
        (GOOD | {"query": " "}, f"query: {FIXES['query']}"),
        ({k: v for k, v in GOOD.items() if k != "query"}, f"query: is missing; {FIXES['query']}"),
        ({k: v for k, v in GOOD.items() if k != "team"}, f"team: is missing; {FIXES['team']}"),
        ({k: v for k, v in GOOD.items() if k != "relevant"}, f"relevant: is missing; {FIXES['relevant']}"),
        (GOOD | {"team": 7}, f"team: {FIXES['team']}"),
        (GOOD | {"channel": {}}, f"channel: {FIXES['channel']}"),
        (GOOD | {"category": []}, f"category: {FIXES['category']}"),
        (GOOD | {"relevant": "T1/m/C1/1"}, f"relevant: {FIXES['relevant']}"),
        (GOOD | {"relevant": {"T1/m/C1/1": -1}}, f"relevant: {FIXES['relevant']}"),
        (GOOD | {"relevant": {"T1/m/C1/1": 0.5}}, f"relevant: {FIXES['relevant']}"),
        (GOOD | {"relevant": [1]}, f"relevant: {FIXES['relevant']}"),
        (GOOD | {"relevant": ["T2/m/C1/1"]}, "relevant: 'T2/m/C1/1' is no document of team T1; ids begin with T1/"),
    ],
)
def test_a_bad_line_is_named_with_its_fix(line: Any, fault: str, tmp_path: Path) -> None:
    file = written(tmp_path, GOOD, line)
    with pytest.raises(ConfigError) as raised:
        read_golden(file)
    assert str(raised.value) == f"{file}: line 2: {fault}" and "secret" not in str(raised.value)


def test_several_bad_lines_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1: .*; line 2: .*; line 3: .*; and 2 more$"):
        read_golden(written(tmp_path, *[GOOD | {"team": ""}] * 5))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for file, fault in ((tmp_path / "none.jsonl", "No such file"), (written(tmp_path, ""), "no question in it")):
        with pytest.raises(ConfigError, match=fault):
            read_golden(file)
    (tmp_path / "latin.jsonl").write_bytes(b'{"query": "caf\xe9"}')
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain")
    for name, fault in (("latin.jsonl", "not UTF-8"), ("no.jsonl.gz", "not a gzip file")):
        with pytest.raises(ConfigError, match=fault):
            read_golden(tmp_path / name)


def test_clicks_are_added_up_to_a_weak_golden_set(tmp_path: Path) -> None:
    shown = ["T1/m/C1/1", "T1/m/C1/2", "T1/m/C1/3"]
    look = {"query": "lockers", "team": "T1", "shown": shown}
    golden = read_golden(
        written(
            tmp_path,
            look | {"clicked": [shown[1]]},
            look | {"clicked": []},
            look | {"clicked": [shown[2]], "channel": "C1"},
            look | {"clicked": [shown[0]], "shown": shown[:1]},
        )
    )
    assert golden.weak and [(q.id, q.channels) for q in golden.questions] == [("1", ()), ("3", ("C1",))]
    assert golden.questions[0].relevant == {shown[0]: 1, shown[1]: 1, shown[2]: 0}
    with pytest.raises(ConfigError, match="line 1: clicked: give the list"):
        read_golden(written(tmp_path, look | {"clicked": ["T1/m/C1/9"]}))


def test_the_digest_is_of_all_that_is_asked(tmp_path: Path) -> None:
    def digest(**more: Any) -> str:
        return read_golden(written(tmp_path, GOOD | more)).digest

    others = {digest(query="x"), digest(team="T1", channel="C1"), digest(relevant={"T1/m/C1/1": 1}), digest(id=9)}
    assert digest() == digest(category="x") and len(others | {digest()}) == 5


def beir(folder: Path, *, scores: str = "q1\tlong name\t2\nq1\td2\t0\n", zipped: bool = False) -> Path:
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{scores}")
    lines = "\n".join(json.dumps({"_id": name, "text": f"words of {name}"}) for name in ("q1", "q2"))
    if zipped:
        (folder / "queries.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    else:
        (folder / "queries.jsonl").write_text(lines)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_a_beir_folder_asks_the_queries_that_were_judged(zipped: bool, tmp_path: Path) -> None:
    golden = read_beir(beir(tmp_path, zipped=zipped), team="T 1")
    [question] = golden.questions
    assert (question.id, question.query, question.team) == ("q1", "words of q1", "T 1")
    assert question.relevant == {row_id("T 1", "long name"): 2, row_id("T 1", "d2"): 0}


def test_a_template_says_what_the_index_calls_a_document(tmp_path: Path) -> None:
    [question] = read_beir(beir(tmp_path), team="T1", doc_id="{team}/f/{id}.txt").questions
    assert list(question.relevant) == [file_id("T1", "long name.txt"), file_id("T1", "d2.txt")]


@pytest.mark.parametrize("template", ["{team}/t/x", "{id}{name}", "{id", "{0}"])
def test_a_template_needs_the_id(template: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--doc-id: .* must have {id}"):
        read_beir(tmp_path, team="T1", doc_id=template)


def test_a_bad_beir_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no qrels/test\.tsv in it"):
        read_beir(tmp_path, team="T1")
    folder = beir(tmp_path, scores="q1 d1 1\n")
    with pytest.raises(ConfigError, match=r"test\.tsv: line 2: give query-id"):
        read_beir(folder, team="T1")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq9\td1\t1\n")
    with pytest.raises(ConfigError, match="no query of it is in qrels"):
        read_beir(folder, team="T1")
    (folder / "queries.jsonl").write_text('{"_id": "q1"}')
    with pytest.raises(ConfigError, match=r"queries\.jsonl: line 1: text:"):
        read_beir(folder, team="T1")
