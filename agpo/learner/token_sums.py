"""Figures of a step that are means over its tokens, summed up over micro-batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agpo.learner.batch import Batch
from agpo.learner.ranks import Ranks
from agpo.objectives.losses import kl_k3


class TokenSums:
    """Token sums over the micro-batches of a step.

    The mismatch KL is k3 of KL(sampler ‖ trainer). ESS is the effective share of the tokens under their importance
    weights, (Σ w)² / (tokens · Σ w²): 1 where all weights are equal. Neither is there for a batch that is not
    `comparable`.
    """

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
        sampled: Tensor,
        importance: Tensor,
    ) -> None:
        """Tensors [tokens] of these rows, without gradient. ``importance``: their weights against the sampler."""
        correct = batch.correct[rows].to(before.device)
        positive = torch.repeat_interleave(correct, batch.response_tokens[rows].to(before.device))
        against_sampler = {}
        if batch.comparable:
            before, sampled = before.double(), sampled.double()
            self.largest_mismatch = max(self.largest_mismatch, float((before - sampled).abs().max()))
            against_sampler = {
                "mismatch_kl": kl_k3(sampled, before),
                "importance": importance,
                "importance_squares": importance.double().square(),
            }
        for name, value in {
            "tokens": torch.ones_like(entropy),
            "positive_tokens": positive.float(),
            "entropy": entropy,
            "entropy_positive": entropy * positive,
            "kl": divergence,
            **against_sampler,
            **{f"clip_{bound}": held for bound, held in clipped.items()},
        }.items():
            self.values[name] = self.values.get(name, 0.0) + float(value.double().sum())

    def total(self, ranks: Ranks) -> TokenSums:
        """The sums over all ranks."""
        if ranks.count == 1:
            return self
        found = TokenSums()
        found.values = ranks.sum_values(self.values)
        found.largest_mismatch = max(map(float, ranks.gather(repr(self.largest_mismatch))))
        return found

    @property
    def mismatch_kl(self) -> float | None:
        """Mean over the tokens; none where there is no token or no comparison."""
        return self.values["mismatch_kl"] / self.values["tokens"] if "mismatch_kl" in self.values else None

    def means(self) -> dict[str, float]:
        if not self.values:
            return {}
        v = self.values
        tokens, positive = v["tokens"], v["positive_tokens"]
        found = {
            "policy/entropy": v["entropy"] / tokens,
            "policy/kl_to_base": v["kl"] / tokens,
        }
        if self.mismatch_kl is not None:
            found["policy/sampler_mismatch_kl"] = self.mismatch_kl
            found["policy/sampler_mismatch_largest"] = self.largest_mismatch
            found["policy/sampler_ess"] = v["importance"] ** 2 / (tokens * v["importance_squares"] or 1.0)
        found |= {f"policy/{name}_share": v[name] / tokens for name in v if name.startswith("clip_")}
        if positive:
            found["policy/entropy_positive"] = v["entropy_positive"] / positive
        if tokens > positive:
            found["policy/entropy_negative"] = (v["entropy"] - v["entropy_positive"]) / (tokens - positive)
        return found
