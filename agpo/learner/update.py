"""One step of the learner: from rollouts and verdicts to a better policy. It holds no formula of an objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agpo.artifacts import digest
from agpo.learner.batch import Batch, cut_micro_batches, pack_rows, split_mini_batches
from agpo.learner.guards import Guard, Reading
from agpo.learner.optimizer import copy_state, measure_step, put_back
from agpo.learner.policy import LogprobReader
from agpo.learner.ranks import Ranks, digest_tensors
from agpo.learner.token_sums import TokenSums
from agpo.objectives.losses import KL_ESTIMATORS
from agpo.settings import LearnerSettings, LossSettings


@dataclass(frozen=True)
class Outcome:
    """What an update did. A refused one, and one that was skipped, left weights and optimiser as they were.

    ``skipped``: why there was nothing to do. It is no fault of the update, and the metric ``policy/skipped`` counts it.
    """

    refused: str | None
    metrics: dict[str, float]
    skipped: str | None = None


@dataclass
class _Figures:
    """Of the optimiser steps of a batch, so far."""

    sums: TokenSums = field(default_factory=TokenSums)
    norms: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    passed: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # read in the only forward pass, by row

    def metrics(self, ranks: Ranks) -> dict[str, float]:
        found = self.sums.total(ranks).means()
        if self.norms:
            found["policy/gradient_norm"] = float(np.mean(self.norms))
        if self.sizes:
            found["policy/step_size"] = max(self.sizes)
        return found


class Learner:
    """A policy in training: the live model, its optimiser, and the base that the KL term refers to.

    What requires a gradient is trained: all of the model's parameters, or those of an adapter.

    With several ``ranks`` (see `join_ranks`) each holds all of it and works on its share of the rows of every batch.
    """

    def __init__(
        self,
        model: Any,
        reference: Any | None,
        loss: LossSettings,
        settings: LearnerSettings,
        temperature: float,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        if loss.kl > 0 and reference is None:
            raise ValueError("loss.kl > 0 needs the base model as reference")
        self.model, self.loss, self.settings = model, loss, settings
        self.temperature, self.seed = temperature, seed
        self.policy = LogprobReader(model, settings.precision, settings.checkpoint_activations)
        self.reference = LogprobReader(reference, settings.precision) if loss.kl > 0 else None
        self.guard = Guard(settings.guards)
        self.ranks = ranks or Ranks()
        self._compared = False  # with the other ranks
        self.trained = {name: part for name, part in model.named_parameters() if part.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay, fused=True
        )

    def update(self, batch: Batch, step: int, guarded: bool = True) -> Outcome:
        """Take the optimiser steps of one batch; ``step`` (from 0) sets the learning rate and the mini-batch order.

        A step whose loss or gradient is not finite, or that passes a bound of the guards, is refused as a whole: what
        was changed until then is put back. Without ``guarded`` only what is not finite is refused, as in a replay of
        what a journal holds: there the guards have decided, and rounding on a GPU must not decide anew.

        Every rank takes the same decision, for the same reason. ValueError where the ranks differ in what they start
        from or were given; RankLost where one is gone.
        """
        if self.ranks.count > 1:
            self.ranks.check_same(self._describe(batch, step, guarded))
            self._compared = True
        if self.settings.frozen:
            return Outcome(None, {}, "learner.frozen = true")
        if not len(batch):
            return Outcome(
                None,
                {"policy/skipped": 1.0},
                "no usable rollout: all are unverifiable or truncated, or no group has an advantage",
            )
        several = self.settings.mini_batches * self.settings.epochs > 1
        watching = guarded and self.settings.guards.reads_after
        kept = copy_state(self.optimizer) if several or watching else None
        watched = self.guard.choose_rows(len(batch))
        whole = self._read(batch, np.arange(len(batch))) if several else None
        rate = self.settings.rate * min(1.0, (step + 1) / max(1, self.settings.warm_up))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        figures = _Figures()
        changes: dict[str, float] = {}
        if watching and whole is None:
            # The update's own forward pass reads the policy before it: only rows that are not in it are read for this.
            figures.passed |= self._read_share(batch, np.setdiff1d(watched, self._choose_teaching(batch, watched)))
        refused = self._take_steps(batch, step, None if whole is None else whole.logprobs, guarded, figures)
        if refused is None and watching:
            before = self._complete(batch, watched, figures.passed) if whole is None else whole.take(watched)
            ids = [batch.ids[row] for row in watched]
            refused, changes = self.guard.compare(before, self._read(batch, watched), ids)
            refused = self.ranks.agree(refused)
        metrics = {**figures.metrics(self.ranks), **changes, "policy/rate": rate, "policy/skipped": 0.0}
        if refused is None:
            return Outcome(None, metrics)
        if kept is not None:
            put_back(self.optimizer, kept)
        return Outcome(f"{refused} (step {step}, {len(batch)} rows)", metrics)

    def _take_steps(
        self, batch: Batch, step: int, old: list[Tensor] | None, guarded: bool, figures: _Figures
    ) -> str | None:
        """The optimiser steps of a batch, up to one that is refused: its reason."""
        for epoch in range(self.settings.epochs):
            for rows in split_mini_batches(batch, self.settings.mini_batches, (self.seed, step, epoch)):
                refused = self.ranks.agree(self._accumulate(batch, rows, old, figures))
                if refused is None and guarded and not figures.norms:
                    refused = self.guard.check_mismatch(figures.sums.total(self.ranks).mismatch_kl)
                if refused is not None:
                    return refused
                self.ranks.sum_gradients(self.trained.values())
                refused = self.ranks.agree(self._check_gradient(guarded, figures))
                if refused is not None:
                    return refused
                self.optimizer.step()
        return None

    def _check_gradient(self, guarded: bool, figures: _Figures) -> str | None:
        """Clip the whole gradient; the reason if no step may follow it."""
        parameters = self.trained
        total = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters.values()])
        norm = float(total)
        figures.norms.append(norm)
        if not math.isfinite(norm):
            broken = (name for name, part in parameters.items() if not part.grad.isfinite().all())
            return f"gradient norm is {norm}, first not finite in {next(broken, 'no single tensor')}"
        refused = self.guard.check_gradient(norm) if guarded else None
        if refused is not None:
            largest = max(parameters, key=lambda name: float(parameters[name].grad.norm()))
            return f"{refused}, most of it in {largest}"
        torch.nn.utils.clip_grads_with_norm_(parameters.values(), self.settings.clip_norm, total)
        if not guarded or not self.settings.guards.step:
            return None
        figures.sizes.append(measure_step(self.optimizer))
        return self.guard.check_step(figures.sizes[-1])

    def _describe(self, batch: Batch, step: int, guarded: bool) -> dict[str, str]:
        """Digests of what all ranks must have in common; what they start from at the first update only."""
        rows = digest([batch.ids, batch.prompts, batch.responses, batch.sampled_logprobs, batch.comparable])
        facts = {"the batch": rows + digest_tensors([batch.advantages]), "the step": f"{step}, guarded: {guarded}"}
        if not self._compared:
            states = [self.optimizer.state.get(part, {}) for part in self.trained.values()]
            facts |= {
                "the settings": digest(
                    [self.loss.model_dump(), self.settings.model_dump(), self.temperature, self.seed]
                ),
                "the weights": digest_tensors(self.model.parameters()),
                "the optimiser's state": digest_tensors(entry[name] for entry in states for name in sorted(entry)),
            }
            if self.reference is not None:
                facts["the base"] = digest_tensors(self.reference.model.parameters())
        return facts

    def _accumulate(self, batch: Batch, rows: np.ndarray, old: list[Tensor] | None, figures: _Figures) -> str | None:
        """Gradients of one optimiser step; the reason if the loss is not finite.

        The weights of the tokens follow from all rows of the mini-batch and are fixed before the first micro-batch:
        any cut into micro-batches gives the same gradient. Rows without advantage are left out of the forward pass
        only where no other term acts on them, and still count.
        """
        for parameter in self.trained.values():
            # Zero, not missing: AdamW moves by its momentum where rows have no advantage, also right after a restart.
            parameter.grad = torch.zeros_like(parameter)
        weights = torch.zeros(len(batch), dtype=torch.float64)
        weights[rows] = self.loss.normalisation.token_weights(batch.response_tokens[rows])
        rows = self.ranks.share(batch, self._choose_teaching(batch, rows))
        for micro in self._cut(batch, rows):
            packed = pack_rows(batch, micro, self.model.device)
            logprobs, entropy = self.policy.read_packed(packed, self.temperature)
            owner = torch.repeat_interleave(batch.response_tokens[micro]).to(logprobs.device)
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
                    base, _ = self.reference.read_packed(packed, self.temperature)
                divergence = KL_ESTIMATORS[self.loss.kl_estimator](logprobs, base)
                losses = losses + self.loss.kl * divergence
            if self.loss.entropy:
                losses = losses - self.loss.entropy * entropy
            total = (losses * weights[micro].to(losses.device, losses.dtype)[owner]).sum()
            if not torch.isfinite(total):
                broken = owner[~losses.isfinite()].tolist() or [0]
                return f"loss is {total.item()}, as in rollout {batch.ids[micro[broken[0]]]}"
            total.backward()  # type: ignore[no-untyped-call]
            if old is None:
                figures.passed |= _by_row(micro, batch, before, entropy.detach())
            figures.sums.add(batch, micro, before, entropy.detach(), divergence.detach(), clipped, sampled, importance)
        return None

    def _choose_teaching(self, batch: Batch, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that a term of the loss acts on."""
        if self.reference is not None or self.loss.entropy:
            return rows
        teaching = (batch.advantages[rows] != 0).numpy()
        chosen: np.ndarray = rows[teaching]
        return chosen

    def count_teaching(self, batch: Batch) -> int:
        """How many rows an epoch computes with."""
        return len(self._choose_teaching(batch, np.arange(len(batch))))

    def _cut(self, batch: Batch, rows: np.ndarray) -> Iterator[np.ndarray]:
        tokens = self.policy.limit_tokens(self.settings.micro_tokens)
        return cut_micro_batches(batch, rows, tokens, self.policy.padded)

    def _read(self, batch: Batch, rows: np.ndarray) -> Reading:
        """What the policy as it is says about these rows, in their order."""
        return self._complete(batch, rows, self._read_share(batch, rows))

    @torch.no_grad()
    def _read_share(self, batch: Batch, rows: np.ndarray) -> dict[int, tuple[Tensor, Tensor]]:
        """Log-probs and entropies of this rank's share of these rows."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for micro in self._cut(batch, self.ranks.share(batch, rows)):
            packed = pack_rows(batch, micro, self.model.device)
            found |= _by_row(micro, batch, *self.policy.read_packed(packed, self.temperature))
        return found

    def _complete(self, batch: Batch, rows: np.ndarray, found: dict[int, tuple[Tensor, Tensor]]) -> Reading:
        """The reading of these rows, in their order, of which every rank has its share."""
        found = {row: found[row] for row in rows.tolist() if row in found}
        tokens = dict(zip(rows.tolist(), batch.response_tokens[rows].tolist(), strict=True))
        found = self.ranks.complete(found, tokens, next(self.model.parameters()))
        logprobs, entropies = zip(*(found[row] for row in rows.tolist()), strict=True)
        return Reading(list(logprobs), list(entropies))


def _by_row(rows: np.ndarray, batch: Batch, logprobs: Tensor, entropy: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    lengths = batch.response_tokens[rows].tolist()
    parts = [values.split(lengths) for values in (logprobs, entropy)]  # type: ignore[no-untyped-call]
    return dict(zip(rows.tolist(), zip(*parts, strict=True), strict=True))
