from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.reader import SourceRow
from agpo.problems.table import CheckedRows, check_rows, count_reasons
from agpo.records import Quarantine
from agpo.settings import FieldMap, TableProblems


def check(*values: Any, **settings: Any) -> CheckedRows:
    rows = [SourceRow("rows.jsonl", number, value) for number, value in enumerate(values, 1)]
    return check_rows(rows, TableProblems(path="rows.jsonl", **settings))


def row(question: Any, answer: Any = "1", **more: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, **more}


def refusals(checked: CheckedRows) -> list[tuple[int, str]]:
    return list(checked.quarantine.select("row", "reason").iter_rows())


def test_good_rows_are_mapped() -> None:
    checked = check(row("  a? \n", " 1 "), row("b?", 0.5), row("c?", 7))
    assert checked.read == 3
    assert checked.kept["question"].to_list() == ["a?", "b?", "c?"]
    assert checked.kept["gold"].to_list() == ["1", "0.5", "7"]
    assert checked.kept["row"].to_list() == [1, 2, 3]
    assert checked.quarantine.is_empty()


def test_ids_depend_on_question_and_gold_and_not_on_the_place() -> None:
    first, second = check(row("a"), row("b")), check(row("b"), row("a"))
    assert first.kept["id"].to_list() == second.kept["id"].to_list()[::-1]
    assert check(row("a", "2")).kept["id"].item() not in first.kept["id"].to_list()


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ({"question": "q", "target": 1}, "missing field", "field answer is not in the row, which has question, target"),
        (["q", "1"], "missing field", "field question is not in the row"),
        (row("q", None), "missing field", "field answer is null"),
        (row(["q"]), "wrong type", "field question is ['q'] (list); accepted: text or a number"),
        (row("q", True), "wrong type", "field answer is True (bool); accepted: text or a number"),
        (row("q", float("nan")), "wrong type", "field answer is nan (float); accepted: text or a number"),
        (row("  "), "empty question", "field question is blank"),
        (row("q", " "), "empty gold", "field answer: no text in it"),
        (row("q\ud800"), "non-UTF-8 text", "field question holds half of a surrogate pair"),
        (row({"\ud800": "é"}), "wrong type", "field question is {'\\ud800': 'é'} (dict); accepted: text or a number"),
        ({"\ud800": 1}, "missing field", "field question is not in the row, which has \\ud800"),
    ],
)
def test_a_bad_row_is_quarantined_and_the_rest_goes_on(bad: Any, reason: str, detail: str) -> None:
    checked = check(row("a"), bad, row("b"))
    assert checked.kept["question"].to_list() == ["a", "b"]
    Quarantine.validate(checked.quarantine)
    found = checked.quarantine.row(0, named=True)
    content = json.loads(found.pop("content"))
    assert found == {"source": "rows.jsonl", "row": 2, "reason": reason, "detail": detail}
    assert repr(content) == repr(bad)


def test_a_row_that_was_not_decoded_keeps_its_reason_and_line() -> None:
    bad = SourceRow("rows.jsonl", 4, None, "{", "invalid JSON", "Expecting value")
    checked = check_rows([bad], TableProblems(path="rows.jsonl"))
    assert checked.quarantine.rows() == [("rows.jsonl", 4, "invalid JSON", "Expecting value", "{")]


@pytest.mark.parametrize(
    ("form", "mark"), [("gsm8k", "no text after a last ####"), ("boxed", "no \\boxed{…} with text")]
)
def test_a_gold_without_its_mark_is_empty(form: str, mark: str) -> None:
    checked = check(row("a", "the answer is 1"), gold_format=form)
    assert refusals(checked) == [(1, "empty gold")]
    assert mark in checked.quarantine["detail"].item()


def test_the_worked_answer_is_kept_beside_the_gold() -> None:
    checked = check(row("a", "1 + 1 = 2 #### 2 "), gold_format="gsm8k")
    assert checked.kept.select("gold", "answer").row(0) == ("2", "1 + 1 = 2 #### 2")


def test_of_rows_with_one_id_the_first_stays() -> None:
    checked = check(row("a", id=1), row("b", id=1), row("b", id=2), row("c", id=" "), fields=FieldMap(id="id"))
    assert checked.kept.select("id", "question").rows() == [("1", "a"), ("2", "b")]
    assert refusals(checked) == [(4, "empty id"), (2, "duplicate id")]
    assert json.loads(checked.quarantine["content"][1]) == {"id": "1", "question": "b", "answer": "1"}


def test_of_rows_with_one_question_the_first_good_one_stays() -> None:
    checked = check(row("a", ""), row("a", "1"), row("a ", "2"), row("a", "1"))
    assert checked.kept.select("row", "gold").rows() == [(2, "1")]
    assert refusals(checked) == [(1, "empty gold"), (3, "duplicate question"), (4, "duplicate id")]


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", ""]), st.sampled_from(["1", "2", None])), max_size=20),
)
def test_every_row_is_kept_or_quarantined_once(pairs: list[tuple[str, str | None]]) -> None:
    checked = check(*(row(question, gold) for question, gold in pairs))
    numbers = pl.concat([checked.kept["row"], checked.quarantine["row"]]).sort().to_list()
    assert numbers == list(range(1, len(pairs) + 1))
    assert checked.kept["question"].is_unique().all()
    assert {question for question, gold in pairs if question and gold} == set(checked.kept["question"])


def test_more_rows_than_a_batch_and_a_limit() -> None:
    rows = [row(f"question {number}") for number in range(20_000)] + [row("question 5", "2")]
    assert refusals(check(*rows)) == [(20_001, "duplicate question")]
    assert check(*rows, limit=9000).kept.height == check(*rows, limit=9000).read == 9000


def test_paths_lead_into_lists_and_structs_and_names_with_dots_come_first() -> None:
    nested = {"prompt": [{"content": "a"}, {"content": "b"}], "gold.text": "1", "gold": {"text": "2"}}
    fields = FieldMap(question="prompt.1.content", gold="gold.text")
    assert check(nested, fields=fields).kept.select("question", "gold").row(0) == ("b", "1")
    for path in ("prompt.2.content", "prompt.x.content", "prompt.content", "prompt.0.content.0", "gold.nothing"):
        assert refusals(check(nested, fields=FieldMap(question=path, gold="gold"))) == [(1, "missing field")]


def test_reasons_are_counted_most_frequent_first() -> None:
    checked = check(row(""), row("a", ""), row("b", ""), row("c"))
    assert list(count_reasons(checked.quarantine).items()) == [("empty gold", 2), ("empty question", 1)]
