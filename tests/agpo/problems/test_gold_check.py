from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from agpo.artifacts.table import read_table
from agpo.problems.gold_check import check_golds
from agpo.problems.prepare import prepare
from agpo.problems.reader import SourceRow
from agpo.problems.table import TooManyBadRows
from agpo.records import Problems, Quarantine
from agpo.settings import TableProblems
from agpo.stages import Work
from tests.jsonl import write_jsonl

GCD = {"task": "gcd", "entry": {"answer": "6", "metadata": {}}}


def check(verifier: str, gold: Any, **settings: Any) -> SourceRow:
    source = TableProblems(path="rows.jsonl").model_copy(update={"verifier": verifier, **settings})
    (row,) = check_golds([SourceRow("rows.jsonl", 7, {"question": "?", "answer": gold})], source)
    return row


@pytest.mark.parametrize(
    ("verifier", "gold", "settings"),
    [
        ("countdown", "3 5 2 : 16", {}),
        ("gym", json.dumps(GCD), {}),
        ("gym", '{"task": "gcd", "seed": 1, "index": 0}', {}),
        ("math", 12.5, {}),
        ("math", r"\frac{1}{2}", {}),
        ("math", "so 4\n#### 4", {"gold_format": "gsm8k"}),
        ("math", "", {}),  # `check_rows` has a reason for it
    ],
)
def test_a_row_whose_gold_can_be_read_stays_as_it_is(verifier: str, gold: Any, settings: Mapping[str, Any]) -> None:
    if verifier == "gym":
        pytest.importorskip("reasoning_gym", reason="the extra gym is not installed")
    row = check(verifier, gold, **settings)
    assert (row.reason, row.value) == ("", {"question": "?", "answer": gold})


@pytest.mark.parametrize(
    ("verifier", "gold", "reason", "detail"),
    [
        ("countdown", "3 5 2 = 16", "unparsable gold", "answer holds '3 5 2 = 16'; accepted: numbers, a colon and"),
        ("math", "$$", "unparsable gold", "field answer holds '$$'; accepted: a number, LaTeX or text"),
        ("gym", '{"task": "gcd"}', "unparsable gold", """holds '{"task": "gcd"}'; accepted: a JSON object"""),
        ("gym", "6", "unparsable gold", "field answer holds '6'; accepted: a JSON object"),
        ("gym", '{"task": "chess"}', "refused gold", "tasks: ab, aiw, "),
        ("math", None, "missing field", "field answer is null"),
    ],
)  # fmt: skip
def test_another_gets_the_reason(verifier: str, gold: Any, reason: str, detail: str) -> None:
    if verifier == "gym":
        pytest.importorskip("reasoning_gym", reason="the extra gym is not installed")
    row = check(verifier, gold)
    assert (row.reason, row.value, row.number) == (reason, None, 7)
    assert detail in row.detail
    assert json.loads(row.content) == {"question": "?", "answer": gold}


def test_without_the_verifiers_library_nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ModuleNotFoundError, match=r"problems\.verifier = 'gym': .*accepted: .* agpo\[gym\]"):
        check("gym", '{"task": "lcm", "seed": 77, "index": 0}')


def test_bad_golds_are_in_quarantine_before_their_questions_count(work: Work) -> None:
    golds = ["3 5 2 = 16", "3 5 2 : 16", "1 2 : 3"]
    rows = [{"question": question, "answer": gold} for question, gold in zip("aab", golds, strict=True)]
    path = write_jsonl(work.out.with_name("rows.jsonl"), rows)
    settings = TableProblems(
        path=str(path), verifier="countdown", prompt="plain-v1", selection=0, confirmation=0, largest_bad_share=0.5
    )
    prepare(settings, work)
    assert read_table(work.out, "problems.parquet", Problems)["gold"].to_list() == golds[1:]
    quarantine = read_table(work.out, "quarantine.parquet", Quarantine)
    assert quarantine.select("row", "reason").rows() == [(1, "unparsable gold")]
    with pytest.raises(TooManyBadRows, match=r"1 unparsable gold.*row 1: field answer holds '3 5 2 = 16'; accepted: n"):
        prepare(settings.model_copy(update={"largest_bad_share": 0.1}), work)
