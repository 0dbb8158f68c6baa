from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from agpo.learner.guards import Guard, Reading, remembered_steps
from agpo.learner.update import Learner
from agpo.settings import GuardSettings, LearnerSettings
from tests.agpo.learner.test_update import FREE, UNGUARDED, learner_of, make, state

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


class TestComparison:
    BEFORE = read([-1.0, -2.0], [-0.5])

    def test_figures(self) -> None:
        refused, found = guard().compare(self.BEFORE, read([-1.5, -2.0], [-0.25], entropy=0.8), IDS)
        assert refused is None
        assert found == pytest.approx(
            {
                "policy/step_kl": ((math.exp(-0.5) + 0.5 - 1) + (math.exp(0.25) - 0.25 - 1)) / 3,
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
        ids=["kl", "ratio", "entropy change"],
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


@pytest.mark.parametrize(("count", "rows"), [(1, [0]), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (12, [0, 3, 6, 9])])
def test_rows_are_chosen_evenly(count: int, rows: list[int]) -> None:
    assert guard(rows=4).choose_rows(count).tolist() == rows


class TestLearner:
    ONE = FREE
    SEVERAL = FREE.model_copy(update={"mini_batches": 2, "epochs": 2})

    def learner(self, chosen: LearnerSettings, **bounds: Any) -> Learner:
        guards = UNGUARDED.model_copy(update=bounds)
        return learner_of(settings=chosen.model_copy(update={"guards": guards}), dtype=torch.float32)

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL], ids=["one", "several"])
    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize(
        ("bounds", "figure"),
        [
            ({"kl": 1e-9}, "policy/step_kl"),
            ({"ratio": 1.0001}, "policy/step_ratio_largest"),
            ({"entropy_change": 1e-7}, "policy/step_entropy_change"),
        ],
        ids=["kl", "ratio", "entropy change"],
    )
    def test_an_update_beyond_a_bound_is_undone_bit_by_bit(
        self, chosen: LearnerSettings, first: bool, bounds: dict[str, float], figure: str
    ) -> None:
        learner, other = self.learner(chosen, **bounds), self.learner(chosen)
        if not first:
            for one in (learner, other):
                one.update(make(seed=1), 0, guarded=False)
        before = state(learner)
        outcome = learner.update(make(), 1)
        assert outcome.refused is not None
        assert f"learner.guards.{next(iter(bounds))} = " in outcome.refused
        assert outcome.refused.endswith("(step 1, 9 rows)")
        assert abs(outcome.metrics[figure]) > next(iter(bounds.values()))
        assert state(learner) == before
        for one in (learner, other):  # no trace in what follows
            assert one.update(make(seed=2), 2, guarded=False).refused is None
        assert state(learner) == state(other)

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL], ids=["one", "several"])
    def test_guards_that_hold_change_nothing(self, chosen: LearnerSettings) -> None:
        wide = {"gradient_norm": 1e9, "kl": 1e9, "entropy_change": 1e9, "entropy_growth": 1e9, "rows": 3}
        guarded, free = self.learner(chosen, **wide), self.learner(chosen)
        for step in range(6):
            outcome, plain = guarded.update(make(seed=step), step), free.update(make(seed=step), step)
            assert outcome.refused is None
            assert outcome.metrics["policy/step_kl"] > 0
            assert plain.metrics.items() <= outcome.metrics.items()
            guarded.guard.note(None, outcome.metrics)
        assert state(guarded) == state(free)

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL], ids=["one", "several"])
    def test_a_large_gradient_is_refused_before_the_optimiser_step(self, chosen: LearnerSettings) -> None:
        learner = self.learner(chosen, gradient_norm=1.5)
        norm = learner.update(make(), 0).metrics["policy/gradient_norm"]
        note(learner.guard, [norm / 100] * 5)
        before, steps = state(learner), list[int]()
        learner.optimizer.register_step_post_hook(lambda *_: steps.append(1))
        outcome = learner.update(make(), 1)
        assert outcome.refused is not None
        assert "learner.guards.gradient_norm = 1.5 times the usual" in outcome.refused
        assert "most of it in model." in outcome.refused
        assert outcome.metrics["policy/gradient_norm"] > norm / 10
        assert not steps
        assert state(learner) == before

    def test_a_replay_does_not_ask_them(self) -> None:
        strict, free = self.learner(self.ONE, kl=1e-9, gradient_norm=1.5), self.learner(self.ONE)
        note(strict.guard, [1e-9] * 5)
        for learner in (strict, free):
            assert learner.update(make(), 0, guarded=False).refused is None
        assert state(strict) == state(free)

    def test_what_is_not_finite_is_named(self) -> None:
        learner = self.learner(self.ONE)
        with torch.no_grad():
            learner.model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
        assert "loss is nan, as in rollout 0/" in (learner.update(make(), 0).refused or "")
        learner = self.learner(self.ONE)
        learner.model.model.layers[1].mlp.up_proj.weight.register_hook(_spoil)
        assert learner.update(make(), 0).refused == (
            "gradient norm is nan, first not finite in model.layers.1.mlp.up_proj.weight (step 0, 9 rows)"
        )


def _spoil(gradient: Tensor) -> Tensor:
    return torch.full_like(gradient, np.nan)


def test_the_defaults_let_a_usual_update_pass() -> None:
    learner = learner_of(settings=LearnerSettings(rate=1e-4, warm_up=0), dtype=torch.float32)
    assert learner.settings.guards == GuardSettings()
    assert learner.update(make(), 0).refused is None


def test_without_bounds_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(settings=FREE)
    monkeypatch.setattr(Learner, "_read", None)
    monkeypatch.setattr("agpo.learner.update.copy_state", None)
    assert learner.update(make(), 0).refused is None


@pytest.mark.parametrize("name", ["gradient_norm", "ratio", "entropy_growth"])
def test_a_multiple_that_is_none_is_refused(name: str) -> None:
    assert GuardSettings.model_validate({name: 0})
    for value in (0.5, 1.0):
        with pytest.raises(ValidationError, match="accepted: a multiple above 1, or 0 for no bound"):
            GuardSettings.model_validate({name: value})
