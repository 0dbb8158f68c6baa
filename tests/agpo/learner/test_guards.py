from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from agpo.learner.batch import Batch
from agpo.learner.guards import Guard, Reading, remembered_steps
from agpo.learner.update import Learner
from agpo.settings import GuardSettings, LearnerSettings
from tests.agpo.learner.test_update import FREE, UNGUARDED, learner_of, make, state

IDS = ["0/a/0", "0/a/1"]


def guard(**bounds: Any) -> Guard:
    return Guard(UNGUARDED.model_copy(update=bounds))


def sampled_by(learner: Learner, batch: Batch) -> Batch:
    """The batch with the learner's own log-probs as the sampler's."""
    read = learner._read(batch, np.arange(len(batch))).logprobs
    return replace(batch, sampled_logprobs=[row.tolist() for row in read])


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
            ({"moved": 1e-9}, "policy/step_moved"),
            ({"ratio": 1.0001}, "policy/step_ratio_largest"),
            ({"entropy_change": 1e-7}, "policy/step_entropy_change"),
        ],
        ids=["kl", "moved", "ratio", "entropy change"],
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
        names = ("mismatch", "gradient_norm", "step", "kl", "entropy_change", "entropy_growth")
        wide = {**dict.fromkeys(names, 1e9), "moved": 1, "rows": 3}
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

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL], ids=["one", "several"])
    def test_a_large_step_is_refused_before_it_is_taken(self, chosen: LearnerSettings) -> None:
        learner = self.learner(chosen, step=1.5)
        size = learner.update(make(), 0).metrics["policy/step_size"]
        for _ in range(5):
            learner.guard.note(None, {"policy/step_size": size / 100, "policy/gradient_norm": 1.0})
        before, steps = state(learner), list[int]()
        learner.optimizer.register_step_post_hook(lambda *_: steps.append(1))
        outcome = learner.update(make(), 1)
        assert outcome.refused is not None
        assert "learner.guards.step = 1.5 times the usual" in outcome.refused
        assert outcome.metrics["policy/step_size"] > size / 10
        assert not steps
        assert state(learner) == before

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL], ids=["one", "several"])
    def test_another_sampler_is_refused_before_the_first_step(self, chosen: LearnerSettings) -> None:
        learner = self.learner(chosen, mismatch=1e-9)
        assert learner.update(sampled_by(learner, make()), 0).refused is None
        before, steps = state(learner), list[int]()
        learner.optimizer.register_step_post_hook(lambda *_: steps.append(1))
        assert "the sampler's log-probs are not the learner's" in (learner.update(make(), 1).refused or "")
        assert not steps
        assert state(learner) == before

    def test_a_replay_does_not_ask_them(self) -> None:
        strict = self.learner(self.ONE, mismatch=1e-9, kl=1e-9, gradient_norm=1.5, step=1.5)
        free = self.learner(self.ONE)
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


@pytest.mark.parametrize("unforwarded", [False, True])
def test_the_update_reads_what_is_watched_before_it_in_its_own_forward_pass(
    unforwarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only rows without advantage, which are not in that pass, are read for the guards; the reading is the same."""
    learner, batch = learner_of(settings=LearnerSettings(rate=1e-4, warm_up=0)), make()
    learner = learner_of(settings=learner.settings.model_copy(update={"guards": GuardSettings(mismatch=0)}))
    if not unforwarded:
        batch = replace(batch, advantages=torch.ones_like(batch.advantages))
    expected = learner._read(batch, np.arange(len(batch)))
    compared, read = list[Reading](), list[list[int]]()
    share, compare = Learner._read_share, learner.guard.compare

    def spy_share(learner: Learner, batch: Batch, rows: np.ndarray) -> dict[int, tuple[Tensor, Tensor]]:
        read.append(rows.tolist())
        return share(learner, batch, rows)

    def spy_compare(before: Reading, after: Reading, ids: list[str]) -> tuple[str | None, dict[str, float]]:
        compared.append(before)
        return compare(before, after, ids)

    monkeypatch.setattr(Learner, "_read_share", spy_share)
    monkeypatch.setattr(learner.guard, "compare", spy_compare)
    assert learner.update(batch, 0).refused is None
    assert read == [(batch.advantages == 0).nonzero()[:, 0].tolist(), list(range(len(batch)))]
    for name in ("logprobs", "entropies"):
        for found, wanted in zip(getattr(compared[0], name), getattr(expected, name), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def _spoil(gradient: Tensor) -> Tensor:
    return torch.full_like(gradient, np.nan)


def test_the_defaults_let_a_usual_update_pass() -> None:
    learner = learner_of(settings=LearnerSettings(rate=1e-4, warm_up=0), dtype=torch.float32)
    assert learner.settings.guards == GuardSettings()
    assert learner.update(sampled_by(learner, make()), 0).refused is None


def test_without_bounds_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(settings=FREE)
    monkeypatch.setattr(Learner, "_read", None)
    monkeypatch.setattr("agpo.learner.update.copy_state", None)
    assert learner.update(make(), 0).refused is None


@pytest.mark.parametrize("name", ["gradient_norm", "step", "ratio", "entropy_growth"])
def test_a_multiple_that_is_none_is_refused(name: str) -> None:
    assert GuardSettings.model_validate({name: 0})
    for value in (0.5, 1.0):
        with pytest.raises(ValidationError, match="accepted: a multiple above 1, or 0 for no bound"):
            GuardSettings.model_validate({name: value})
