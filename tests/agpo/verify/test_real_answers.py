"""GSM8K and MATH golds: each equals itself, other ones do not, and the fast path never contradicts math-verify."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from agpo.verify import Item, VerifierPool
from agpo.verify.extraction import last_box
from agpo.verify.math import decide_math

DATA = Path(__file__).resolve().parents[3] / "../shared/data"


def sample(golds: list[str], size: int) -> list[str]:
    return random.Random(0).sample(golds, size)


@pytest.fixture(scope="module")
def gsm8k() -> list[str]:
    path = DATA / "gsm8k/train.jsonl.gz"
    if not path.exists():
        pytest.skip("shared/data/gsm8k is absent")
    with gzip.open(path, "rt") as file:
        return sample([json.loads(line)["answer"] for line in file], 500)


@pytest.fixture(scope="module")
def math() -> list[str]:
    path = DATA / "math/train.parquet"
    if not path.exists():
        pytest.skip("shared/data/math is absent")
    truth = pl.read_parquet(path, columns=["reward_model"])["reward_model"].struct.field("ground_truth")
    return sample(truth.struct.field("solution").to_list(), 300)


def box(solution: str) -> str:
    return last_box(solution) or "2"  # two of 7,500 solutions write \boxed without braces


def test_gsm8k_solutions_have_their_gold(gsm8k: list[str]) -> None:
    golds = [answer.rpartition("####")[2].strip() for answer in gsm8k]
    for answer, gold in zip(gsm8k, golds, strict=True):
        for spelling in (gold, f"${gold}$", gold.replace(",", ""), f"\\boxed{{{gold}}}", f"\\${gold}.00"):
            verdict = decide_math(answer, spelling)
            assert verdict is not None
            assert verdict.correct, (gold, spelling)


def test_shuffled_gsm8k_golds_fail(gsm8k: list[str]) -> None:
    golds = [answer.rpartition("####")[2].strip() for answer in gsm8k]
    for answer, own, gold in zip(gsm8k, golds, golds[1:], strict=False):
        verdict = decide_math(answer, gold)
        assert verdict is not None
        assert verdict.correct is (own.replace(",", "") == gold.replace(",", ""))


def test_math_solutions_have_their_gold(math: list[str]) -> None:
    for solution in math:
        verdict = decide_math(solution, box(solution))
        assert verdict is not None
        assert verdict.correct


def test_math_golds_equal_themselves_in_math_verify(math: list[str], pool: VerifierPool) -> None:
    golds = sorted({box(solution) for solution in math if not box(solution).isdigit()})
    verdicts = pool.verify([Item("math-verify", f"\\boxed{{{gold}}}", gold) for gold in golds])
    assert [gold for gold, verdict in zip(golds, verdicts, strict=True) if not verdict.correct] == []


def test_shuffled_math_golds_fail_as_in_math_verify(math: list[str], pool: VerifierPool) -> None:
    golds = sample([box(solution) for solution in math], 150)
    pairs = [(answer, gold) for answer, gold in pairwise(golds) if answer != gold]
    ours = pool.verify([Item("math", f"\\boxed{{{answer}}}", gold) for answer, gold in pairs])
    theirs = pool.verify([Item("math-verify", f"\\boxed{{{answer}}}", gold) for answer, gold in pairs])
    assert [verdict.verdict for verdict in ours] == [verdict.verdict for verdict in theirs]
    assert Counter(verdict.verdict for verdict in ours)["wrong"] > 0.98 * len(pairs)


def test_most_pairs_need_no_computer_algebra(gsm8k: list[str], math: list[str]) -> None:
    golds = [answer.rpartition("####")[2].strip() for answer in gsm8k[:300]]
    mixed = [*golds, *map(box, math)]
    right = [decide_math(f"\\boxed{{{gold}}}", gold) for gold in mixed]
    wrong = [
        decide_math(f"\\boxed{{{answer}}}", gold)
        for same in (golds, [box(solution) for solution in math])
        for answer, gold in pairwise(same)
    ]
    decided = [verdict is not None for verdict in right + wrong]
    assert sum(decided) / len(decided) >= 0.95
