from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, nan

import pytest

from agpo.alarms import find_alarms
from agpo.journal import Update

Figure = Callable[[int], float]

HEALTHY: dict[str, Figure] = {
    "rollout/all_wrong_share": lambda step: 0.3 + 0.02 * (step % 3),
    "rollout/accuracy": lambda step: 0.4,
    "policy/entropy": lambda step: 0.5 + 0.01 * (step % 2),
    "rollout/length_mean": lambda step: 20.0 + step % 4,
    "rollout/truncated_share": lambda step: 0.05,
    "rollout/repetition": lambda step: 0.1,
    "verify/unverifiable_by_response_share": lambda step: 0.01,
    "policy/refused": lambda step: 0.0,
    "policy/sampler_mismatch_kl": lambda step: 1e-9,
    "policy/sampler_ess": lambda step: 1.0,
}


def make(steps: int = 60, **changed: Figure) -> list[Update]:
    """Updates of a healthy run, but for some figures (their names without the part before the slash)."""
    figures = {name: changed.get(name.partition("/")[2], figure) for name, figure in HEALTHY.items()}
    return [
        Update(
            step=step,
            policy_before="",
            policy="",
            refused=None,
            metrics={name: figure(step) for name, figure in figures.items()},
            time_ms=0,
        )
        for step in range(steps)
    ]


def ramp(start: float, end: float, steps: int = 60) -> Figure:
    return lambda step: start + (end - start) * step / (steps - 1)


def falling(step: int) -> float:
    return max(0.0, 1 - step / 30)


def names(updates: Sequence[Update]) -> list[str]:
    return [alarm.name for alarm in find_alarms(updates)]


@pytest.mark.parametrize("steps", [0, 1, 9, 10, 60, 300])
def test_a_healthy_run_has_none(steps: int) -> None:
    assert names(make(steps)) == []


@pytest.mark.parametrize(
    ("name", "changed", "unchanged"),
    [
        ("unsolved", {"all_wrong_share": ramp(0.2, 0.5)}, {"all_wrong_share": ramp(0.2, 0.3)}),
        ("entropy_collapse", {"entropy": falling}, {"entropy": ramp(1.0, 0.2)}),
        ("length_explosion", {"length_mean": ramp(10, 60)}, {"length_mean": ramp(10, 20)}),
        ("truncated", {"truncated_share": ramp(0.0, 0.3)}, {"truncated_share": ramp(0.1, 0.2)}),
        ("repetition", {"repetition": ramp(0.1, 0.9)}, {"repetition": ramp(0.1, 0.4)}),
        (
            "unverifiable",
            {"unverifiable_by_response_share": ramp(0, 0.2)},
            {"unverifiable_by_response_share": ramp(0, 0.05)},
        ),
        ("refused", {"refused": lambda step: float(step % 3 == 0)}, {"refused": lambda step: float(step % 5 == 0)}),
        ("sampler_mismatch", {"sampler_mismatch_kl": lambda _: 2e-3}, {"sampler_mismatch_kl": lambda _: 9e-4}),
        ("sampler_weights", {"sampler_ess": lambda _: 0.9}, {"sampler_ess": lambda _: 0.96}),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_each_has_its_bound(name: str, changed: dict[str, Figure], unchanged: dict[str, Figure]) -> None:
    assert names(make(**changed)) == [name]
    assert names(make(**unchanged)) == []


def test_it_names_figure_steps_and_bound() -> None:
    (alarm,) = find_alarms(make(all_wrong_share=lambda step: 0.5 if step >= 35 else 0.2))
    assert (alarm.figure, alarm.first_step, alarm.last_step) == ("rollout/all_wrong_share", 35, 59)
    assert (alarm.value, alarm.bound) == pytest.approx((0.5, 0.3))
    assert alarm.message == (
        "steps 35 to 59: share of problems without a right answer 0.5, at the start 0.2; alarm above 0.3"
    )


def test_unsolved_problems_with_rising_entropy_are_called_a_collapse() -> None:
    (alarm,) = find_alarms(make(all_wrong_share=ramp(0.2, 0.9), entropy=ramp(0.4, 1.3)))
    assert "; the token entropy rises from 0.583 to 1.12: a collapse" in alarm.message


def test_what_may_be_chance_is_no_alarm() -> None:
    """A few steps of a few groups: shares of quarters, whose mean moves by more than the bound."""
    shares = [0.0, 0.25, 0.5, 0.25, 0.0, 0.5, 0.25, 0.5, 0.0, 0.5]
    assert sum(shares[5:]) / 5 > sum(shares[:5]) / 5 + 0.1
    assert names(make(10, all_wrong_share=lambda step: shares[step])) == []


def test_a_policy_that_is_nearly_always_right_may_have_no_entropy() -> None:
    sure: dict[str, Figure] = {"entropy": falling, "accuracy": ramp(0.5, 1.0)}
    assert names(make(**sure)) == ["entropy_collapse"]
    assert names(make(**{**sure, "accuracy": lambda _: 0.95})) == []


def test_only_the_latest_steps_count() -> None:
    assert names(make(200, length_mean=lambda step: 100.0 if 50 <= step < 150 else 10.0)) == []


def test_steps_without_a_figure_or_with_one_that_is_not_finite_are_left_out() -> None:
    updates = make(entropy=lambda step: (nan, inf, 0.5)[step % 3])
    updates[-1] = updates[-1].model_copy(update={"metrics": {"policy/refused": 1.0}})
    assert names(updates) == []
    assert names([update.model_copy(update={"metrics": {}}) for update in updates]) == []
