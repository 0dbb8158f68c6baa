from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agpo.alarms import find_alarms
from agpo.journal import Update
from agpo.learner.batch import Batch, make_batch, pack_rows, split_mini_batches
from agpo.learner.optimizer import load_optimizer, save_optimizer
from agpo.learner.packed import PackedRows
from agpo.learner.policy import LogprobReader
from agpo.learner.update import Learner, Outcome, _Figures
from agpo.objectives import Agpo
from agpo.objectives.losses import kl_k3, ppo_clip_loss
from agpo.settings import GuardSettings, LearnerSettings, LossSettings
from tests.agpo.learner.models import dense_logprobs, tiny_model
from tests.agpo.learner.slopes import assert_slopes
from tests.agpo.learner.steps import make_step

TEMPERATURE = 0.8
PLAIN, WITH_KL, WITH_ALL = LossSettings(), LossSettings(kl=0.1), LossSettings(kl=0.1, entropy=0.05)
UNGUARDED = GuardSettings(mismatch=0, gradient_norm=0, step=0, kl=0, moved=0, entropy_change=0, entropy_growth=0)
FREE = LearnerSettings(clip_norm=1e9, warm_up=0, rate=1e-3, guards=UNGUARDED)
VERDICTS = ["correct", "wrong", "wrong", "correct", "correct", "correct", "wrong", "wrong", "wrong", "unverifiable"]
PROBLEMS = ["a", "a", "a", "b", "b", "b", "c", "c", "d", "d"]  # mixed, all right, all wrong, one usable row


def make(verdicts: list[str] = VERDICTS, problems: list[str] = PROBLEMS, seed: int = 0) -> Batch:
    return make_batch(*make_step(verdicts, problems, seed=seed), Agpo(), True)


def learner_of(
    kind: str = "llama",
    loss: LossSettings = PLAIN,
    settings: LearnerSettings = FREE,
    dtype: torch.dtype = torch.float64,
) -> Learner:
    """A learner whose policy is not its reference."""
    model = tiny_model(kind, dtype)
    reference = tiny_model(kind, dtype)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.05)
    return Learner(model, reference.requires_grad_(False), loss, settings, TEMPERATURE, seed=0)


def gradients(learner: Learner, batch: Batch) -> list[Tensor]:
    assert learner.update(batch, 0).refused is None
    return [parameter.grad.clone() for parameter in learner.model.parameters()]


def assert_equal(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def state(learner: Learner) -> list[bytes]:
    """The bytes of weights and optimiser."""
    entries = [learner.optimizer.state.get(parameter, {}) for parameter in learner.model.parameters()]
    tensors = [*learner.model.parameters(), *(entry[name] for entry in entries for name in sorted(entry))]
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


def reorder(batch: Batch, order: list[int]) -> Batch:
    return Batch(
        ids=[batch.ids[row] for row in order],
        prompts=[batch.prompts[row] for row in order],
        responses=[batch.responses[row] for row in order],
        sampled_logprobs=[batch.sampled_logprobs[row] for row in order],
        groups=batch.groups[order],
        correct=batch.correct[order],
        advantages=batch.advantages[order],
    )


def whole_loss(model: Any, reference: Any, batch: Batch, rows: np.ndarray, old: Tensor | None) -> Tensor:
    """The loss of an optimiser step as the formula says it, by dense log-probs; ``old`` [tokens of these rows]."""
    ids, chosen = pack_rows(batch, rows, "cpu").pad()
    logprobs, entropy = dense_logprobs(model, ids, chosen, TEMPERATURE)
    base, _ = dense_logprobs(reference, ids, chosen, TEMPERATURE)
    advantages = batch.advantages[rows].repeat_interleave(batch.response_tokens[rows])
    clipped = ppo_clip_loss(logprobs, logprobs.detach() if old is None else old, advantages, 0.2, 0.2, 3.0)
    return (clipped + WITH_ALL.kl * kl_k3(logprobs, base) - WITH_ALL.entropy * entropy).sum() / len(logprobs)


class TestGradient:
    def test_is_that_of_the_whole_loss_by_finite_differences(self) -> None:
        learner, batch = learner_of("gpt2", WITH_ALL), make()
        rows, model = np.arange(len(batch)), copy.deepcopy(learner.model)
        ids, chosen = pack_rows(batch, rows, "cpu").pad()
        old = dense_logprobs(model, ids, chosen, TEMPERATURE)[0].detach()
        found = gradients(learner, batch)
        reference = learner.reference
        assert reference is not None
        assert_slopes(
            model, found, lambda: whole_loss(model, reference.model, batch, rows, old), directions=5, rel=1e-7
        )

    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    @given(tokens=st.integers(1, 80), data=st.data())
    @settings(max_examples=10)
    def test_does_not_depend_on_micro_batches_or_row_order(self, kind: str, tokens: int, data: st.DataObject) -> None:
        batch = make()
        order = data.draw(st.permutations(range(len(batch))))
        cut = learner_of(kind, WITH_ALL, FREE.model_copy(update={"micro_tokens": tokens}))
        assert_equal(gradients(cut, reorder(batch, order)), gradients(learner_of(kind, WITH_ALL), batch))

    def test_is_the_same_with_rows_that_have_no_advantage_and_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = make()
        none = batch.advantages == 0
        assert none.sum() == 3  # the all-right group
        kept = replace(batch, advantages=batch.advantages.where(~none, torch.tensor(1e-300, dtype=torch.float64)))
        read, counts = LogprobReader.read_packed, []

        def count(reader: LogprobReader, rows: PackedRows, temperature: float) -> tuple[Tensor, Tensor]:
            counts.append(len(rows.lengths))
            return read(reader, rows, temperature)

        monkeypatch.setattr(LogprobReader, "read_packed", count)
        assert_equal(gradients(learner_of(), batch), gradients(learner_of(), kept))
        assert counts == [len(batch) - 3, len(batch)]

    @pytest.mark.parametrize("loss", [WITH_KL, LossSettings(entropy=0.1)])
    def test_counts_every_row_where_another_term_acts(self, loss: LossSettings) -> None:
        batch = make()
        lone = replace(batch, advantages=torch.zeros_like(batch.advantages))
        assert max(gradient.abs().max() for gradient in gradients(learner_of(loss=loss), lone)) > 1e-3

    @given(rows=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), seed=st.integers(1, 9))
    @settings(max_examples=10)
    def test_unverifiable_rows_change_nothing(self, rows: list[str], seed: int) -> None:
        rollouts, verdicts = make_step(VERDICTS, PROBLEMS)
        more, unverifiable = make_step(["unverifiable"] * len(rows), rows, seed=seed)
        ids = (more["id"] + "/more").alias("id")
        rollouts, verdicts = rollouts.vstack(more.with_columns(ids)), verdicts.vstack(unverifiable.with_columns(ids))
        batch = make_batch(rollouts.sample(fraction=1, shuffle=True, seed=seed), verdicts, Agpo(), True)
        assert_equal(gradients(learner_of(loss=WITH_ALL), batch), gradients(learner_of(loss=WITH_ALL), make()))

    def test_on_policy_is_the_general_path_with_old_log_probs_of_the_same_policy(self) -> None:
        found: list[list[Tensor]] = []
        for general in (False, True):
            learner, batch = learner_of(loss=WITH_ALL), make()
            old = learner._read(batch, np.arange(len(batch))).logprobs if general else None
            assert learner._accumulate(batch, np.arange(len(batch)), old, _Figures()) is None
            found.append([parameter.grad for parameter in learner.model.parameters()])
        assert_equal(found[0], found[1], tolerance=0)


def test_mini_batches_and_epochs_as_in_a_plain_implementation() -> None:
    """Old log-probs stay those of the policy before the step; each mini-batch has its own denominator and clip."""
    chosen = LearnerSettings(
        mini_batches=2, epochs=3, clip_norm=0.5, warm_up=4, rate=0.05, weight_decay=0.01, guards=UNGUARDED
    )
    learner, batch, step = learner_of("gpt2", WITH_ALL, chosen), make(), 1
    model, reference = copy.deepcopy(learner.model), learner.reference.model  # type: ignore[union-attr]
    outcome = learner.update(batch, step)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05 * 2 / 4, betas=(0.9, 0.99), weight_decay=0.01)
    ids, taken = pack_rows(batch, np.arange(len(batch)), "cpu").pad()
    old = torch.split(dense_logprobs(model, ids, taken, TEMPERATURE)[0].detach(), batch.response_tokens.tolist())
    norms = []
    for epoch in range(3):
        for rows in split_mini_batches(batch, 2, (0, step, epoch)):
            optimizer.zero_grad()
            loss = whole_loss(model, reference, batch, rows, torch.cat([old[row] for row in rows]))
            loss.backward()  # type: ignore[no-untyped-call]
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
            optimizer.step()
    assert outcome.refused is None
    assert outcome.metrics["policy/gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-10)
    assert outcome.metrics["policy/clip_low_share"] > 0
    assert_equal(list(learner.model.parameters()), list(model.parameters()), tolerance=1e-10)


class TestRefusal:
    """A step that is not finite leaves weights and optimiser as they were."""

    ONE = FREE
    SEVERAL = FREE.model_copy(update={"mini_batches": 2, "epochs": 2})

    def refuse(self, learner: Learner, poisoned: Batch, step: int = 2) -> Outcome:
        assert learner.update(make(), 0).refused is None  # the optimiser has a state
        before = state(learner)
        outcome = learner.update(poisoned, step)
        assert state(learner) == before
        return outcome

    def poison(self, value: float, row: int = 0) -> Batch:
        batch = make()
        advantages = batch.advantages.clone()
        advantages[row] = value
        return replace(batch, advantages=advantages)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("chosen", [ONE, SEVERAL])
    @pytest.mark.parametrize("loss", [PLAIN, WITH_ALL])
    def test_of_an_advantage(self, value: float, chosen: LearnerSettings, loss: LossSettings) -> None:
        outcome = self.refuse(learner_of(loss=loss, settings=chosen), self.poison(value))
        assert outcome.refused is not None
        assert outcome.refused.startswith("loss is ")
        assert "step 2" in outcome.refused

    def test_in_a_later_mini_batch(self) -> None:
        batch, learner = make(), learner_of(loss=WITH_ALL, settings=self.SEVERAL)
        second = split_mini_batches(batch, 2, (0, 2, 0))[1]
        steps = _count_steps(learner)
        assert self.refuse(learner, self.poison(torch.nan, second[0])).refused is not None
        assert len(steps) == 4 + 1  # of the good batch, and the one that was put back

    def test_of_the_first_step_of_all(self) -> None:
        learner = learner_of(settings=self.SEVERAL)
        before = state(learner)
        poisoned = self.poison(torch.nan, split_mini_batches(make(), 2, (0, 0, 0))[1][0])
        assert learner.update(poisoned, 0).refused is not None
        assert state(learner) == before
        assert not learner.optimizer.state

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL])
    def test_of_a_gradient_that_overflows(self, chosen: LearnerSettings) -> None:
        outcome = self.refuse(learner_of(settings=chosen), self.poison(1e300))
        assert outcome.refused is not None
        assert outcome.refused.startswith("gradient norm is ")

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL])
    def test_of_a_weight(self, chosen: LearnerSettings) -> None:
        learner = learner_of(loss=WITH_ALL, settings=chosen)
        with torch.no_grad():
            learner.model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
        before = state(learner)
        assert learner.update(make(), 0).refused is not None
        assert state(learner) == before

    @pytest.mark.parametrize("chosen", [ONE, SEVERAL])
    def test_leaves_no_trace_in_later_steps(self, chosen: LearnerSettings) -> None:
        refusing, other = learner_of(settings=chosen), learner_of(settings=chosen)
        assert self.refuse(refusing, self.poison(torch.nan)).refused is not None
        other.update(make(), 0)
        for learner in (refusing, other):
            learner.update(make(seed=1), 3)
        assert state(refusing) == state(other)

    def test_is_a_skip_of_a_batch_without_usable_row(self) -> None:
        outcome = self.refuse(learner_of(), make(["unverifiable"] * 3, ["a", "a", "b"]))
        assert outcome.refused is None
        assert outcome.skipped == ("no usable rollout: all are unverifiable or truncated, or no group has an advantage")
        assert outcome.metrics == {"policy/skipped": 1.0}


def _count_steps(learner: Learner) -> list[int]:
    steps: list[int] = []
    learner.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    return steps


@pytest.mark.parametrize("chosen", [FREE, TestRefusal.SEVERAL])
def test_two_runs_from_the_same_state_give_the_same_bytes(chosen: LearnerSettings) -> None:
    def run() -> list[bytes]:
        learner = learner_of(loss=WITH_ALL, settings=chosen, dtype=torch.float32)
        for step in range(3):
            assert learner.update(make(seed=step), step).refused is None
        return state(learner)

    assert run() == run()


def test_a_step_without_advantages_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """AdamW moves by its momentum where the gradient is zero, and not at all where there is none."""
    nothing = make(["correct"] * 4, ["a", "a", "b", "b"])
    assert not nothing.advantages.any()
    through, restarted = learner_of(), learner_of()
    through.update(make(), 0)
    restarted.model.load_state_dict(through.model.state_dict())
    save_optimizer(through.model, through.optimizer, tmp_path / "optimizer.safetensors")
    load_optimizer(restarted.model, restarted.optimizer, tmp_path / "optimizer.safetensors")
    before = state(through)
    for learner in (through, restarted):
        assert learner.update(nothing, 1).metrics["policy/gradient_norm"] == 0
    assert state(through) == state(restarted) != before


@pytest.mark.parametrize(("step", "rate"), [(0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)])
def test_the_learning_rate_warms_up(step: int, rate: float) -> None:
    learner = learner_of(settings=LearnerSettings(warm_up=4, rate=1e-3))
    assert learner.update(make(), step).metrics["policy/rate"] == pytest.approx(rate * 1e-3)


def test_the_gradient_norm_is_clipped() -> None:
    learner = learner_of(settings=FREE.model_copy(update={"clip_norm": 0.01}))
    found = gradients(learner, make())
    assert torch.cat([gradient.flatten() for gradient in found]).norm() == pytest.approx(0.01, rel=1e-3)


def test_metrics_are_means_over_tokens() -> None:
    batch = make()
    learner = learner_of("gpt2", WITH_ALL)
    model, reference = copy.deepcopy(learner.model), learner.reference.model  # type: ignore[union-attr]
    ids, chosen = pack_rows(batch, np.arange(len(batch)), "cpu").pad()
    with torch.no_grad():
        logprobs, entropy = dense_logprobs(model, ids, chosen, TEMPERATURE)
        divergence = kl_k3(logprobs, dense_logprobs(reference, ids, chosen, TEMPERATURE)[0])
    right = batch.correct.repeat_interleave(batch.response_tokens)
    drift = torch.tensor([value for row in batch.sampled_logprobs for value in row], dtype=torch.float64) - logprobs
    metrics = learner.update(batch, 0).metrics
    expected: dict[str, Any] = {
        "policy/entropy": entropy.mean(),
        "policy/entropy_positive": entropy[right].mean(),
        "policy/entropy_negative": entropy[~right].mean(),
        "policy/kl_to_base": divergence.mean(),
        "policy/sampler_mismatch_kl": ((-drift).exp() + drift - 1).mean(),
        "policy/sampler_mismatch_largest": drift.abs().max(),
        "policy/clip_low_share": 0.0,
        "policy/clip_high_share": 0.0,
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-10), name


def test_what_is_not_comparable_has_no_mismatch_and_no_alarm() -> None:
    """A sampler that leaves tokens out scales the others' probabilities up: no bound and no alarm sees that."""
    guarded = FREE.model_copy(update={"guards": UNGUARDED.model_copy(update={"mismatch": 0.05})})
    found = {}
    for comparable in (True, False):
        learner = learner_of(loss=WITH_ALL, settings=guarded)
        outcomes = [learner.update(replace(make(), comparable=comparable), step) for step in range(10)]
        found[comparable] = outcomes
        updates = [
            Update(step=step, policy_before="", policy="", refused=each.refused, metrics=each.metrics, time_ms=0)
            for step, each in enumerate(outcomes)
        ]
        alarms = {alarm.name for alarm in find_alarms(updates)}
        assert ({"sampler_mismatch", "sampler_weights"} <= alarms) == comparable
        assert comparable or not alarms
    assert all("learner.guards.mismatch = 0.05: the sampler's log-probs" in (one.refused or "") for one in found[True])
    assert not any(one.refused for one in found[False])
    missing = found[True][0].metrics.keys() - found[False][0].metrics.keys()
    assert missing == {f"policy/sampler_{name}" for name in ("mismatch_kl", "mismatch_largest", "ess")}


@pytest.mark.parametrize("comparable", [True, False])
def test_the_sampler_changes_no_weight(comparable: bool) -> None:
    learner, other = learner_of(), learner_of()
    learner.update(replace(make(), comparable=comparable), 0)
    other.update(make(), 0)
    assert state(learner) == state(other)


def test_a_kl_term_needs_a_reference() -> None:
    with pytest.raises(ValueError, match=r"loss\.kl > 0 needs the base model as reference"):
        Learner(tiny_model("llama"), None, WITH_KL, FREE, TEMPERATURE, seed=0)


@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "gemma2", "cohere"])
def test_any_causal_model_learns(kind: str) -> None:
    rising = LearnerSettings(rate=0.01, warm_up=0, guards=UNGUARDED)
    learner, batch = learner_of(kind, dtype=torch.float32, settings=rising), make()
    batch = replace(batch, advantages=batch.correct.double())
    read = LogprobReader(learner.model).read
    ids, chosen = pack_rows(batch, np.flatnonzero(batch.correct.numpy()), "cpu").pad()
    before = read(ids, chosen, 1.0)[0].sum()
    for step in range(5):
        assert learner.update(batch, step).refused is None
    assert read(ids, chosen, 1.0)[0].sum() > before + 1
