from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from scipy.stats import binomtest

from agpo.records import Disagreements, Verdicts
from agpo.verify import Item, Verdict, VerifierPool
from agpo.verify.audit import Audit, Rate, audit_verdicts, wilson_interval

DATA = Path(__file__).resolve().parents[3] / "../shared/data"


def write_verdicts(verdicts: Sequence[Verdict], step: int = 0) -> pl.DataFrame:
    columns = {name: [getattr(verdict, name) for verdict in verdicts] for name in Verdicts.column_names()[1:]}
    ids = [f"{step}/p{number}/0" for number in range(len(verdicts))]
    return pl.DataFrame({"id": ids, **columns}, schema=Verdicts.create_empty().schema)


def decide(verdict: str, extracted: str | None = None, verifier: str = "math") -> Verdict:
    return Verdict(verdict, extracted=extracted, verifier=verifier, version=1)  # type: ignore[arg-type]


CASES = [  # verdict, response, gold
    (decide("correct", "5"), r"\boxed{5}", "5"),
    (decide("wrong", "6"), r"\boxed{6}", "5"),
    (decide("wrong", "5 eggs"), "thus " * 500 + r"\boxed{5 eggs}", "5"),
    (decide("correct", "1+x"), r"\boxed{1+x}", "x+1"),
    (decide("unverifiable", "5"), r"\boxed{5}", "5"),
    (decide("wrong", "5", verifier="countdown"), r"\boxed{5}", "5"),
]


def audit_cases(sample: int = 100, seed: int = 0) -> Audit:
    verdicts, responses, golds = zip(*CASES, strict=True)
    problems = [f"p{number}" for number in range(len(CASES))]
    return audit_verdicts(write_verdicts(verdicts), problems, responses, golds, sample=sample, seed=seed)


def test_disagreements_and_rates() -> None:
    audit = audit_cases()
    Disagreements.validate(audit.disagreements)
    assert audit.disagreements.drop("tail").rows() == [
        ("0/p2/0", "p2", "5", "5 eggs", "wrong", "correct"),
        ("0/p3/0", "p3", "x+1", "1+x", "correct", "wrong"),
    ]
    tail = audit.disagreements["tail"][0]
    assert len(tail) == 600
    assert tail.endswith(r"thus \boxed{5 eggs}")
    assert audit.disagreement == Rate(2, 4)  # neither the unverifiable answer nor the puzzle's is read again
    assert audit.false_negative == Rate(1, 2)
    metrics = audit.metrics()
    assert metrics["verify/audited"] == 4
    assert metrics["verify/disagreement_rate"] == metrics["verify/false_negative_rate"] == 0.5
    assert metrics["verify/false_negative_rate_lower"] < 0.1
    assert metrics["verify/false_negative_rate_upper"] > 0.9


def test_without_a_case_there_is_no_rate() -> None:
    audit = audit_verdicts(write_verdicts([]), [], [], [], sample=10, seed=0)
    assert audit.metrics() == {"verify/audited": 0}
    assert audit.disagreement.value is None
    assert audit.disagreement.interval == (0.0, 1.0)


def test_a_sample_depends_on_seed_and_ids_alone() -> None:
    verdicts = [decide("wrong", "5")] * 50
    problems, responses, golds = [f"p{number}" for number in range(50)], [r"\boxed{5}"] * 50, ["5"] * 50

    def draw(step: int, seed: int, order: Sequence[int] = range(50)) -> list[str]:
        table = write_verdicts(verdicts, step)[list(order)]
        columns = [[column[at] for at in order] for column in (problems, responses, golds)]
        found = audit_verdicts(table, *columns, sample=10, seed=seed)  # type: ignore[misc]
        assert found.disagreement == Rate(10, 10)
        return found.disagreements["problem_id"].to_list()

    assert draw(0, 0) == draw(0, 0, range(49, -1, -1))
    assert draw(0, 0) != draw(1, 0)
    assert draw(0, 0) != draw(0, 1)


@pytest.mark.parametrize(("hits", "cases"), [(0, 10), (1, 10), (5, 10), (10, 10), (3, 1000), (0, 1)])
def test_wilson_interval(hits: int, cases: int) -> None:
    theirs = binomtest(hits, cases).proportion_ci(0.95, "wilson")
    assert wilson_interval(hits, cases) == pytest.approx((theirs.low, theirs.high))


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match="3 hits of 2 cases"):
        wilson_interval(3, 2)


def test_the_rate_of_planted_false_negatives_is_found() -> None:
    golds = [str(number) for number in range(1000)]
    draw = random.Random(0)
    verdicts = [decide("wrong" if draw.random() < 0.1 else "correct", gold) for gold in golds]
    planted = sum(verdict.verdict == "wrong" for verdict in verdicts) / 1000
    responses = [f"#### {gold}" for gold in golds]
    audit = audit_verdicts(write_verdicts(verdicts), golds, responses, golds, sample=400, seed=0)
    lower, upper = audit.false_negative.interval
    assert lower < planted < upper
    assert upper - lower < 0.07


def test_real_golds_in_other_spellings(pool: VerifierPool) -> None:
    path = DATA / "gsm8k/train.jsonl.gz"
    if not path.exists():
        pytest.skip("shared/data/gsm8k is absent")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        answers = [json.loads(line)["answer"] for line in file][:200]
    golds = [answer.rpartition("####")[2].strip().replace(",", "") for answer in answers]
    spellings = [r"\boxed{{{}}}", r"\boxed{{\${}.00}}", "#### {}", "The answer is {}.", r"\boxed{{{}\text{{ eggs}}}}"]
    right = [(spelling.format(gold), gold) for gold in golds for spelling in spellings]
    wrong = [(rf"\boxed{{{other}}}", gold) for gold, other in pairwise(golds) if gold != other]
    rows = right + wrong
    verdicts = pool.verify([Item("math", response, gold) for response, gold in rows])
    responses, answers = zip(*rows, strict=True)
    audit = audit_verdicts(write_verdicts(verdicts), answers, responses, answers, sample=len(rows), seed=0)
    assert audit.disagreement == Rate(0, len(rows))
    assert audit.false_negative == Rate(0, len(right))
