"""One step of the learner: from rollouts and verdicts to a better policy. It holds no formula of an objective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agpo.learner.batch import Batch, cut_micro_batches, pad_right, split_mini_batches
from agpo.learner.policy import LogprobReader
from agpo.objectives.losses import KL_ESTIMATORS
from agpo.settings import LearnerSettings, LossSettings


@dataclass(frozen=True)
class Outcome:
    """What an update did. A refused one left weights and optimiser as they were."""

    refused: str | None
    metrics: dict[str, float]


class Learner:
    """A policy in training: the live model, its optimiser, and the base that the KL term refers to."""

    def __init__(
        self,
        model: Any,
        reference: Any | None,
        loss: LossSettings,
        settings: LearnerSettings,
        temperature: float,
        seed: int,
    ) -> None:
        if loss.kl > 0 and reference is None:
            raise ValueError("loss.kl > 0 needs the base model as reference")
        self.model, self.loss, self.settings = model, loss, settings
        self.temperature, self.seed = temperature, seed
        self.policy = LogprobReader(model)
        self.reference = LogprobReader(reference) if loss.kl > 0 else None
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay, fused=True
        )

    def update(self, batch: Batch, step: int) -> Outcome:
        """Take the optimiser steps of one batch; ``step`` (from 0) sets the learning rate and the mini-batch order.

        A step whose loss or gradient is not finite is refused as a whole: what its earlier mini-batches changed is
        put back.
        """
        if not len(batch):
            return Outcome("no usable rollout: all are unverifiable or truncated", {})
        optimizer_steps = self.settings.mini_batches * self.settings.epochs
        on_policy = optimizer_steps == 1
        kept = None if on_policy else self._copy_state()
        old = None if on_policy else self._read_old_logprobs(batch)
        rate = self.settings.rate * min(1.0, (step + 1) / max(1, self.settings.warm_up))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        sums = _Sums()
        norms: list[float] = []
        for epoch in range(self.settings.epochs):
            for rows in split_mini_batches(batch, self.settings.mini_batches, (self.seed, step, epoch)):
                refused = self._accumulate(batch, rows, old, sums)
                norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm))
                if refused is None and not math.isfinite(norm):
                    refused = f"gradient norm is {norm}"
                if refused is not None:
                    if kept is not None:
                        self._put_back(kept)
                    return Outcome(f"{refused} (step {step}, {len(rows)} rows)", sums.means())
                self.optimizer.step()
                norms.append(norm)
        return Outcome(None, {**sums.means(), "policy/gradient_norm": float(np.mean(norms)), "policy/rate": rate})

    def _accumulate(self, batch: Batch, rows: np.ndarray, old: list[Tensor] | None, sums: _Sums) -> str | None:
        """Gradients of one optimiser step; the reason if the loss is not finite.

        The weights of the tokens follow from all rows of the mini-batch and are fixed before the first micro-batch:
        any cut into micro-batches gives the same gradient. Rows without advantage are left out of the forward pass
        only where no other term acts on them, and still count.
        """
        for parameter in self.model.parameters():
            # Zero, not missing: AdamW moves by its momentum where rows have no advantage, also right after a restart.
            parameter.grad = torch.zeros_like(parameter)
        weights = torch.zeros(len(batch), dtype=torch.float64)
        weights[rows] = self.loss.normalisation.token_weights(batch.response_tokens[rows])
        if self.reference is None and not self.loss.entropy:
            rows = rows[(batch.advantages[rows] != 0).numpy()]
        for micro in cut_micro_batches(batch, rows, self.settings.micro_tokens):
            ids, chosen = pad_right(batch, micro, self.model.device)
            logprobs, entropy = self.policy.read(ids, chosen, self.temperature)
            owner = chosen[:, 1:].nonzero()[:, 0]
            advantages = batch.advantages[micro].to(logprobs.device, logprobs.dtype)[owner]
            before = logprobs.detach() if old is None else torch.cat([old[row] for row in micro])
            losses = self.loss.policy.token_losses(logprobs, before, advantages, owner)
            divergence = torch.zeros_like(logprobs)
            if self.reference is not None:
                with torch.no_grad():
                    base, _ = self.reference.read(ids, chosen, self.temperature)
                divergence = KL_ESTIMATORS[self.loss.kl_estimator](logprobs, base)
                losses = losses + self.loss.kl * divergence
            if self.loss.entropy:
                losses = losses - self.loss.entropy * entropy
            total = (losses * weights[micro].to(losses.device, losses.dtype)[owner]).sum()
            if not torch.isfinite(total):
                return f"loss is {total.item()}"
            total.backward()  # type: ignore[no-untyped-call]
            clipped = self.loss.policy.clipped(logprobs.detach(), before, advantages, owner)
            sums.add(batch, micro, before, entropy.detach(), divergence.detach(), clipped)
        return None

    @torch.no_grad()
    def _read_old_logprobs(self, batch: Batch) -> list[Tensor]:
        """The policy's log-probs before the step's first optimiser step, a tensor a row."""
        found: list[Tensor] = [torch.empty(0)] * len(batch)
        for micro in cut_micro_batches(batch, np.arange(len(batch)), self.settings.micro_tokens):
            ids, chosen = pad_right(batch, micro, self.model.device)
            logprobs, _ = self.policy.read(ids, chosen, self.temperature)
            parts = logprobs.split(batch.response_tokens[micro].tolist())  # type: ignore[no-untyped-call]
            for row, part in zip(micro, parts, strict=True):
                found[row] = part
        return found

    def _copy_state(self) -> tuple[list[Tensor], dict[str, Any]]:
        weights = [parameter.detach().clone() for parameter in self.model.parameters()]
        state = self.optimizer.state_dict()
        copied = {
            index: {name: value.clone() for name, value in entry.items()} for index, entry in state["state"].items()
        }
        return weights, {**state, "state": copied}

    @torch.no_grad()
    def _put_back(self, kept: tuple[list[Tensor], dict[str, Any]]) -> None:
        for parameter, weight in zip(self.model.parameters(), kept[0], strict=True):
            parameter.copy_(weight)
        self.optimizer.load_state_dict(kept[1])


class _Sums:
    """Token sums over the micro-batches of a step."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.largest_mismatch = 0.0

    def add(
        self,
        batch: Batch,
        rows: np.ndarray,
        before: Tensor,
        entropy: Tensor,
        divergence: Tensor,
        clipped: dict[str, Tensor],
    ) -> None:
        sampled = torch.tensor([value for row in rows for value in batch.sampled_logprobs[row]], device=before.device)
        correct = batch.correct[rows].to(before.device)
        positive = torch.repeat_interleave(correct, batch.response_tokens[rows].to(before.device))
        drift = (sampled - before).double()
        self.largest_mismatch = max(self.largest_mismatch, float(drift.abs().max()))
        for name, value in {
            "tokens": torch.ones_like(entropy),
            "positive_tokens": positive.float(),
            "entropy": entropy,
            "entropy_positive": entropy * positive,
            "kl": divergence,
            "mismatch_kl": drift.exp() - drift - 1,
            **{f"clip_{bound}": held for bound, held in clipped.items()},
        }.items():
            self.values[name] = self.values.get(name, 0.0) + float(value.double().sum())

    def means(self) -> dict[str, float]:
        if not self.values:
            return {}
        v = self.values
        tokens, positive = v["tokens"], v["positive_tokens"]
        found = {
            "policy/entropy": v["entropy"] / tokens,
            "policy/kl_to_base": v["kl"] / tokens,
            "policy/sampler_mismatch_kl": v["mismatch_kl"] / tokens,
            "policy/sampler_mismatch_largest": self.largest_mismatch,
        }
        found |= {f"policy/{name}_share": v[name] / tokens for name in v if name.startswith("clip_")}
        if positive:
            found["policy/entropy_positive"] = v["entropy_positive"] / positive
        if tokens > positive:
            found["policy/entropy_negative"] = (v["entropy"] - v["entropy_positive"]) / (tokens - positive)
        return found
