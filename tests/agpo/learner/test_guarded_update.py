"""Guards in the learner: what is refused leaves no trace, and what holds changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agpo.learner.batch import Batch
from agpo.learner.guards import Reading
from agpo.learner.update import Learner
from agpo.settings import GuardSettings, LearnerSettings
from tests.agpo.learner.test_guards import note
from tests.agpo.learner.test_update import FREE, UNGUARDED, learner_of, make, state


def sampled_by(learner: Learner, batch: Batch) -> Batch:
    """The batch with the learner's own log-probs as the sampler's."""
    read = learner._read(batch, np.arange(len(batch))).logprobs
    return replace(batch, sampled_logprobs=[row.tolist() for row in read])


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
