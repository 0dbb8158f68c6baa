from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from agpo.learner.guards import Guard, Reading, remembered_steps
from agpo.settings import GuardSettings
from tests.agpo.learner.test_update import UNGUARDED

IDS = ["0/a/0", "0/a/1"]


def guard(**bounds: Any) -> Guard:
    return Guard(UNGUARDED.model_copy(update=bounds))


def note(guard: Guard, values: list[float], name: str = "policy/gradient_norm", refused: str | None = None) -> Guard:
    for value in values:
        guard.note(refused, {name: value})
    return guard


def read(*logprobs: list[float], entropy: float = 1.0) -> Reading:
    return Reading([torch.tensor(row) for row in logprobs], [torch.full((len(row),), entropy) for row in logprobs])


class TestGradientBound:
    def test_is_a_multiple_of_the_median(self) -> None:
        bound = note(guard(gradient_norm=4.0), [1.0, 2.0, 3.0, 2.0, 9.0])
        assert bound.check_gradient(8.0) is None
        assert bound.check_gradient(8.1) == (
            "gradient norm 8.1 is above learner.guards.gradient_norm = 4 times the usual 2"
        )

    @pytest.mark.parametrize(
        "noted", [[1.0] * 4, [1.0] * 4 + [0.0] * 3], ids=["fewer than five", "zeros are no measure"]
    )
    def test_is_off_without_a_measure(self, noted: list[float]) -> None:
        assert note(guard(gradient_norm=4.0), noted).check_gradient(1e9) is None

    def test_is_off_when_not_set(self) -> None:
        assert note(guard(), [1.0] * 9).check_gradient(1e9) is None

    def test_is_not_measured_by_refused_updates(self) -> None:
        bound = note(note(guard(gradient_norm=4.0), [1.0] * 5), [100.0] * 9, refused="too large")
        assert bound.check_gradient(5.0) is not None

    def test_forgets(self) -> None:
        bound = note(note(guard(gradient_norm=4.0), [1.0] * 25), [100.0] * 25)
        assert bound.check_gradient(100.0) is None


class TestStepBound:
    def noted(self, values: list[float], gradient: float = 1.0, **bounds: float) -> Guard:
        found = guard(**bounds)
        for value in values:
            found.note(None, {"policy/step_size": value, "policy/gradient_norm": gradient})
        return found

    def test_is_a_multiple_of_the_median(self) -> None:
        bound = self.noted([0.1, 0.2, 0.3, 0.2, 0.9], step=4.0)
        assert bound.check_step(0.8) is None
        assert bound.check_step(0.81) == (
            "step of 0.81 times the rate (root mean square over the weights) is above learner.guards.step = 4 times "
            "the usual 0.2"
        )

    def test_is_not_measured_by_what_momentum_alone_did(self) -> None:
        bound = self.noted([0.2] * 5, step=4.0)
        for _ in range(15):
            bound.note(None, {"policy/step_size": 1e-6, "policy/gradient_norm": 0.0})
        assert bound.check_step(0.7) is None

    @pytest.mark.parametrize(("count", "bound"), [(4, 4.0), (9, 0.0)], ids=["too early", "not set"])
    def test_is_off(self, count: int, bound: float) -> None:
        assert self.noted([0.1] * count, step=bound).check_step(99.0) is None

    def test_what_is_not_a_number_is_refused(self) -> None:
        assert self.noted([0.1] * 5, step=4.0).check_step(math.nan) is not None


class TestMismatchBound:
    def test_says_what_it_may_be(self) -> None:
        assert guard(mismatch=0.05).check_mismatch(0.05) is None
        assert guard(mismatch=0.05).check_mismatch(0.06) == (
            "KL(sampler ‖ learner) 0.06 per token is above learner.guards.mismatch = 0.05: the sampler's log-probs are "
            "not the learner's, it has other weights, another precision or leaves tokens out; saved rollouts of "
            "another policy need learner.guards.mismatch=0"
        )

    @pytest.mark.parametrize(("bound", "found"), [(0.0, 9.0), (0.05, None)], ids=["not set", "no comparison"])
    def test_is_off(self, bound: float, found: float | None) -> None:
        assert guard(mismatch=bound).check_mismatch(found) is None


class TestComparison:
    BEFORE = read([-1.0, -2.0], [-0.5])

    def test_figures(self) -> None:
        refused, found = guard().compare(self.BEFORE, read([-1.5, -2.0], [-0.25], entropy=0.8), IDS)
        assert refused is None
        assert found == pytest.approx(
            {
                "policy/step_kl": ((math.exp(-0.5) + 0.5 - 1) + (math.exp(0.25) - 0.25 - 1)) / 3,
                "policy/step_moved": 2 / 3,
                "policy/step_ratio_largest": math.exp(0.5),
                "policy/step_entropy_change": -0.2,
                "policy/entropy_after": 0.8,
            }
        )

    @pytest.mark.parametrize(
        ("bounds", "after", "reason"),
        [
            ({"kl": 0.03}, read([-1.5, -2.0], [-0.5]), "KL of the update 0.0355 is above learner.guards.kl = 0.03"),
            (
                {"moved": 0.3},
                read([-1.5, -2.1], [-0.5]),
                "share of moved tokens 0.333 is above learner.guards.moved = 0.3",
            ),
            (
                {"ratio": 1.5},
                read([-1.0, -2.0], [-1.0]),
                "probability ratio in rollout 0/a/1 1.65 is above learner.guards.ratio = 1.5",
            ),
            (
                {"entropy_change": 0.1},
                read([-1.0, -2.0], [-0.5], entropy=0.8),
                "entropy change 0.2 is above learner.guards.entropy_change = 0.1",
            ),
        ],
        ids=["kl", "moved", "ratio", "entropy change"],
    )
    def test_names_the_bound_that_is_passed(self, bounds: dict[str, float], after: Reading, reason: str) -> None:
        assert guard(**bounds).compare(self.BEFORE, after, IDS)[0] == reason
        ((name, value),) = bounds.items()
        assert guard(**{name: value * 3}).compare(self.BEFORE, after, IDS)[0] is None

    @pytest.mark.parametrize(
        ("noted", "refused"),
        [([0.6] * 5, True), ([0.7] * 5, False), ([0.6] * 4, False), ([0.6] * 5 + [2.0] * 40, True)],
        ids=["above", "below", "too early", "long ago"],
    )
    def test_entropy_is_bound_by_that_of_the_start(self, noted: list[float], refused: bool) -> None:
        bound = note(guard(entropy_growth=2.0), noted, "policy/entropy_after")
        reason, _ = bound.compare(self.BEFORE, read([-1.0, -2.0], [-0.5], entropy=1.3), IDS)
        assert (reason is not None) == refused
        if refused:
            assert reason == ("entropy 1.3 is above learner.guards.entropy_growth = 2 times the 0.6 of the run's start")

    @pytest.mark.parametrize("value", [math.nan, -math.inf])
    def test_what_is_not_finite_is_refused_without_any_bound(self, value: float) -> None:
        refused, _ = guard().compare(self.BEFORE, read([-1.0, -2.0], [value]), IDS)
        assert refused == "the policy after the update is not finite, as in rollout 0/a/1"


def test_a_policy_beyond_the_entropy_bound_may_come_back() -> None:
    bound = note(guard(entropy_growth=2.0), [0.6] * 5, "policy/entropy_after")
    rows = [-1.0, -2.0], [-0.5]
    assert bound.compare(read(*rows, entropy=1.4), read(*rows, entropy=1.3), IDS)[0] is None
    assert bound.compare(read(*rows, entropy=1.4), read(*rows, entropy=1.5), IDS)[0] is not None


@pytest.mark.parametrize("step", [0, 3, 5, 12, 29, 30, 31, 80])
def test_a_guard_told_the_remembered_steps_is_one_told_all(step: int) -> None:
    metrics = [{"policy/gradient_norm": 1.0 + n, "policy/entropy_after": 2.0 + n} for n in range(step)]
    whole, resumed = guard(), guard()
    for n in range(step):
        whole.note(None, metrics[n])
    for n in remembered_steps(step):
        resumed.note(None, metrics[n])
    assert (whole._start, whole._past) == (resumed._start, resumed._past)


class TestRun:
    """The bound on what many updates do together."""

    @staticmethod
    def noted(start: list[float], now: list[float], **bounds: float) -> Guard:
        return note(note(guard(accuracy=0.5, **bounds), start, "rollout/accuracy"), now, "rollout/accuracy")

    def test_a_run_that_lost_its_accuracy_is_stopped(self) -> None:
        assert self.noted([0.24, 0.26, 0.25, 0.25, 0.25], [0.1] * 25).check_run() == (
            "accuracy 0.1 of the last 25 applied updates is below learner.guards.accuracy = 0.5 times the 0.25 of the "
            "run's start"
        )

    @pytest.mark.parametrize(
        ("start", "now"),
        [
            ([0.25] * 5, [0.13] * 25),
            ([0.25] * 5, [0.0] * 19),
            ([0.0, 0.0, 0.1, 0.0, 0.0], [0.0] * 25),
            ([0.0] * 5, [0.0] * 25),
        ],
        ids=["not by half", "too early", "by chance", "nothing to lose"],
    )
    def test_others_go_on(self, start: list[float], now: list[float]) -> None:
        assert self.noted(start, now).check_run() is None

    def test_skipped_steps_are_no_measure(self) -> None:
        guarded = self.noted([0.5] * 5, [0.5] * 9)
        for _ in range(16):
            guarded.note(None, {"rollout/accuracy": 0.0, "policy/skipped": 1.0})
        assert guarded.check_run() is None

    def test_no_bound(self) -> None:
        assert note(guard(accuracy=0), [0.5] * 5 + [0.0] * 25, "rollout/accuracy").check_run() is None


@pytest.mark.parametrize(("count", "rows"), [(1, [0]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3]), (12, [0, 3, 6, 9])])
def test_rows_are_chosen_evenly(count: int, rows: list[int]) -> None:
    assert guard(rows=4).choose_rows(count).tolist() == rows


@pytest.mark.parametrize(
    ("count", "rows"), [(10, 10), (17, 16), (33, 16), (49, 16), (64, 16), (96, 24), (128, 32), (1024, 32)]
)
def test_of_a_small_batch_a_quarter_is_read(count: int, rows: int) -> None:
    assert len(guard().choose_rows(count)) == rows


@pytest.mark.parametrize("name", ["gradient_norm", "step", "ratio", "entropy_growth"])
def test_a_multiple_that_is_none_is_refused(name: str) -> None:
    assert GuardSettings.model_validate({name: 0})
    for value in (0.5, 1.0):
        with pytest.raises(ValidationError, match="accepted: a multiple above 1, or 0 for no bound"):
            GuardSettings.model_validate({name: value})
