from __future__ import annotations

import polars as pl
import pytest

from agpo.learner.batch import make_batch
from agpo.learner.diagnostics import describe_step, measure_repetition
from agpo.objectives import Agpo
from tests.agpo.learner.steps import make_step

VERDICTS = ["correct", "wrong", "wrong", "unverifiable", "correct", "correct", "wrong", "wrong"]
PROBLEMS = ["a", "a", "a", "a", "b", "b", "c", "c"]


def describe(verdicts: list[str], problems: list[str], truncated: list[bool] | None = None) -> dict[str, float]:
    rollouts, table = make_step(verdicts, problems, truncated)
    return describe_step(rollouts, table, make_batch(rollouts, table, Agpo(), True))


def test_groups_are_counted_by_their_usable_rows() -> None:
    found = describe(VERDICTS, PROBLEMS)
    for name in ("all_wrong_share", "all_correct_share", "mixed_share"):
        assert found[f"rollout/{name}"] == pytest.approx(1 / 3)
    assert found["rollout/accuracy"] == pytest.approx(3 / 7)
    assert found["rollout/reward_mean"] == pytest.approx(-1 / 7)


def test_verdicts_are_shares_of_all_rollouts() -> None:
    rollouts, verdicts = make_step(VERDICTS, PROBLEMS, [False, True, *[False] * 6])
    reasons = pl.Series(["", "missing", "malformed", "timeout", "", "", "missing", "mismatch"])
    cause = pl.when(verdict="unverifiable").then(pl.lit("response")).otherwise("cause").cast(verdicts["cause"].dtype)
    verdicts = verdicts.with_columns(reason=reasons, cause=cause)
    found = describe_step(rollouts, verdicts, make_batch(rollouts, verdicts, Agpo(), True))
    assert found["verify/correct_share"] == 3 / 8
    assert found["verify/wrong_share"] == 4 / 8
    assert found["verify/unverifiable_share"] == 1 / 8
    assert found["verify/unverifiable_by_response_share"] == 1 / 8
    assert found["verify/missing_share"] == 2 / 8
    assert found["verify/malformed_share"] == 1 / 8
    assert found["rollout/truncated_share"] == 1 / 8


def test_gradient_masses_are_sums_of_advantages_by_verdict() -> None:
    rollouts, verdicts = make_step(VERDICTS, PROBLEMS)
    batch = make_batch(rollouts, verdicts, Agpo(), True)
    found = describe_step(rollouts, verdicts, batch)
    right = [float(value) for value, correct in zip(batch.advantages, batch.correct, strict=True) if correct]
    wrong = [float(value) for value, correct in zip(batch.advantages, batch.correct, strict=True) if not correct]
    assert found["policy/mass_positive"] == pytest.approx(sum(map(abs, right)) / 7)
    assert found["policy/mass_negative"] == pytest.approx(sum(map(abs, wrong)) / 7)
    assert found["policy/advantage_positive"] == pytest.approx(sum(right) / len(right))
    assert found["policy/advantage_negative"] == pytest.approx(sum(wrong) / len(wrong))


def test_lengths_and_duplicates() -> None:
    rollouts, verdicts = make_step(["wrong"] * 4, ["a", "a", "b", "b"])
    same = rollouts["response_ids"].gather([0, 0, 0, 3])
    rollouts = rollouts.with_columns(response_ids=same)
    found = describe_step(rollouts, verdicts, make_batch(rollouts, verdicts, Agpo(), True))
    assert found["rollout/tokens"] == same.list.len().sum()
    assert found["rollout/length_mean"] == pytest.approx(same.list.len().mean())
    assert found["rollout/duplicate_share"] == 1 / 4  # the same answer to another problem is none


def test_a_step_without_usable_row_is_described() -> None:
    found = describe(["unverifiable", "wrong"], ["a", "b"], [False, True])
    assert found["verify/unverifiable_share"] == 1 / 2
    assert found["rollout/accuracy"] == found["policy/mass_negative"] == 0
    assert "policy/advantage_negative" not in found


def test_an_unverifiable_row_may_be_no_fault_of_its_response() -> None:
    found = describe(VERDICTS, PROBLEMS)
    assert (found["verify/unverifiable_share"], found["verify/unverifiable_by_response_share"]) == (1 / 8, 0)


@pytest.mark.parametrize(
    ("responses", "share"),
    [
        ([[1, 2, 1, 2, 1], [1, 2], [3], []], 2 / 5),
        ([[7] * 9], 7 / 8),
        ([[1, 2, 3], [1, 2, 3]], 0.0),  # another answer repeats nothing
        ([[1], [], [1]], 0.0),
        ([], 0.0),
    ],
    ids=str,
)
def test_repetition_is_counted_inside_an_answer(responses: list[list[int]], share: float) -> None:
    assert measure_repetition(pl.Series(responses, dtype=pl.List(pl.Int32))) == pytest.approx(share)
