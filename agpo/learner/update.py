"""One step of the learner: from rollouts and verdicts to a better policy. It holds no formula of an objective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agpo.learner.batch import Batch, cut_micro_batches, pad_right, split_mini_batches
from agpo.learner.guards import Guard, Reading
from agpo.learner.optimizer import copy_state, put_back
from agpo.learner.policy import LogprobReader
from agpo.learner.token_sums import TokenSums
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
        self.policy = LogprobReader(model, settings.precision, settings.checkpoint_activations)
        self.reference = LogprobReader(reference, settings.precision) if loss.kl > 0 else None
        self.guard = Guard(settings.guards)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay, fused=True
        )

    def update(self, batch: Batch, step: int, guarded: bool = True) -> Outcome:
        """Take the optimiser steps of one batch; ``step`` (from 0) sets the learning rate and the mini-batch order.

        A step whose loss or gradient is not finite, or that passes a bound of the guards, is refused as a whole: what
        was changed until then is put back. Without ``guarded`` only what is not finite is refused, as in a replay of
        what a journal holds: there the guards have decided, and rounding on a GPU must not decide anew.
        """
        if not len(batch):
            return Outcome("no usable rollout: all are unverifiable or truncated", {})
        several = self.settings.mini_batches * self.settings.epochs > 1
        watching = guarded and self.settings.guards.reads_after
        kept = copy_state(self.optimizer) if several or watching else None
        watched = self.guard.choose_rows(len(batch))
        whole = self._read(batch, np.arange(len(batch))) if several else None
        rate = self.settings.rate * min(1.0, (step + 1) / max(1, self.settings.warm_up))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        sums = TokenSums()
        norms: list[float] = []
        changes: dict[str, float] = {}
        before = (self._read(batch, watched) if whole is None else whole.take(watched)) if watching else None
        refused = self._take_steps(batch, step, None if whole is None else whole.logprobs, guarded, sums, norms)
        if refused is None and before is not None:
            ids = [batch.ids[row] for row in watched]
            refused, changes = self.guard.compare(before, self._read(batch, watched), ids)
        metrics = {**sums.means(), **changes, "policy/rate": rate}
        if norms:
            metrics["policy/gradient_norm"] = float(np.mean(norms))
        if refused is None:
            return Outcome(None, metrics)
        if kept is not None:
            put_back(self.optimizer, kept)
        return Outcome(f"{refused} (step {step}, {len(batch)} rows)", metrics)

    def _take_steps(
        self, batch: Batch, step: int, old: list[Tensor] | None, guarded: bool, sums: TokenSums, norms: list[float]
    ) -> str | None:
        """The optimiser steps of a batch, up to one that is refused: its reason."""
        for epoch in range(self.settings.epochs):
            for rows in split_mini_batches(batch, self.settings.mini_batches, (self.seed, step, epoch)):
                refused = self._accumulate(batch, rows, old, sums)
                if refused is not None:
                    return refused
                parameters = dict(self.model.named_parameters())
                total = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters.values()])
                norms.append(float(total))
                if not math.isfinite(norms[-1]):
                    broken = (name for name, part in parameters.items() if not part.grad.isfinite().all())
                    return f"gradient norm is {norms[-1]}, first not finite in {next(broken, 'no single tensor')}"
                refused = self.guard.check_gradient(norms[-1]) if guarded else None
                if refused is not None:
                    largest = max(parameters, key=lambda name: float(parameters[name].grad.norm()))
                    return f"{refused}, most of it in {largest}"
                torch.nn.utils.clip_grads_with_norm_(parameters.values(), self.settings.clip_norm, total)
                self.optimizer.step()
        return None

    def _accumulate(self, batch: Batch, rows: np.ndarray, old: list[Tensor] | None, sums: TokenSums) -> str | None:
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
            sampled = before.new_tensor([value for row in micro for value in batch.sampled_logprobs[row]])
            importance = (before - sampled).exp()
            clipped = self.loss.policy.clipped(logprobs.detach(), before, advantages, owner)
            if self.loss.correction is not None:
                importance = self.loss.correction.token_weights(before, sampled, owner)
                losses = losses * importance
                clipped["correction"] = self.loss.correction.held(before, sampled, owner)
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
                broken = owner[~losses.isfinite()].tolist() or [0]
                return f"loss is {total.item()}, as in rollout {batch.ids[micro[broken[0]]]}"
            total.backward()  # type: ignore[no-untyped-call]
            sums.add(batch, micro, before, entropy.detach(), divergence.detach(), clipped, sampled, importance)
        return None

    @torch.no_grad()
    def _read(self, batch: Batch, rows: np.ndarray) -> Reading:
        """What the policy as it is says about these rows, in their order."""
        found: dict[int, tuple[Tensor, ...]] = {}
        for micro in cut_micro_batches(batch, rows, self.settings.micro_tokens):
            ids, chosen = pad_right(batch, micro, self.model.device)
            lengths = batch.response_tokens[micro].tolist()
            parts = [values.split(lengths) for values in self.policy.read(ids, chosen, self.temperature)]  # type: ignore[no-untyped-call]
            found |= dict(zip(micro.tolist(), zip(*parts, strict=True), strict=True))
        logprobs, entropies = zip(*(found[row] for row in rows.tolist()), strict=True)
        return Reading(list(logprobs), list(entropies))
