"""The one table at the end of the demo."""

from __future__ import annotations

from typing import Any

from agpo.relevance import Interval, LabelScores
from flows.demo import table_of_demo
from tasks.relevance import Relevance, Teacher
from tasks.report import PassAtK, Report


def report(**parts: Any) -> Report:
    empty: dict[str, Any] = {
        "outcome": None, "reasons": [], "weights": {}, "pass_at_k": [], "relevance": None, "stages": [],
        "nothing_new": False, "mlflow_run": "here",
    }  # fmt: skip
    return Report(**empty | parts)


def solved(policy: str, k: int, value: float) -> PassAtK:
    change = {"difference": 0.0, "difference_lower": 0.0, "difference_upper": 0.0}
    return PassAtK(policy=policy, set="hard", k=k, problems=9, value=value, lower=value, upper=value, **change)


def scores(macro_f1: float) -> LabelScores:
    interval = Interval(value=macro_f1, lower=macro_f1 - 0.01, upper=macro_f1 + 0.01)
    return LabelScores(
        pairs=9, queries=3, accuracy=interval, macro_f1=interval, f1={}, over_graded=None, unread=0, by_case={}
    )


def test_puzzles_show_the_first_and_the_largest_k() -> None:
    rows = table_of_demo([report(family="countdown", pass_at_k=[solved("base", k, k / 10) for k in (1, 2, 4)])])
    assert [(row["model"], row["measure"], row["percent"]) for row in rows] == [
        ("base", "hard pass@1", "10.0 [10.0, 10.0]"),
        ("base", "hard pass@4", "40.0 [40.0, 40.0]"),
    ]


def test_the_shop_shows_teachers_then_students() -> None:
    teacher = Teacher(name="base", single=0.5, near_miss=None, votes=scores(0.7))
    found = Relevance(
        labelled_by="version 1", teachers=[teacher], pairs=9, agreement=1, label_accuracy=None,
        students={"student": scores(0.9), "tfidf": scores(0.4)}, outcome=None, reasons=[],
    )  # fmt: skip
    both = table_of_demo(
        [report(family="countdown", pass_at_k=[solved("base", 1, 0.1)]), report(family="shop", relevance=found)]
    )
    assert [(row["problems"], row["model"], row["percent"]) for row in both] == [
        ("countdown", "base", "10.0 [10.0, 10.0]"),
        ("shop", "teacher: base", "70.0 [69.0, 71.0]"),
        ("shop", "model: student", "90.0 [89.0, 91.0]"),
        ("shop", "model: tfidf", "40.0 [39.0, 41.0]"),
    ]
