"""Bounds on an update: one that would ruin the run is refused, for a reason that names what passed which bound."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from agpo.objectives.losses import kl_k3
from agpo.settings import GuardSettings

_MEMORY = 25  # updates that a running median is taken of
_LEAST = 5  # fewer applied ones are no measure; so many are the start of a run


@dataclass(frozen=True)
class Reading:
    """Log-probs and entropies of some rows of a batch under one policy: a tensor [response tokens] a row."""

    logprobs: list[Tensor]
    entropies: list[Tensor]

    def take(self, rows: Iterable[int]) -> Reading:
        chosen = list(rows)
        return Reading([self.logprobs[row] for row in chosen], [self.entropies[row] for row in chosen])


def remembered_steps(step: int) -> list[int]:
    """The steps before ``step`` that a guard has to know of."""
    return [*range(min(step, _LEAST)), *range(max(_LEAST, step - _MEMORY), step)]


class Guard:
    """The bounds of `GuardSettings`, and of the updates before what they are measured by.

    What it knows of earlier updates it is told from the journal (`note`), in order, so that a resumed run refuses the
    same updates. The bound of the gradient is off while fewer than five of the last 25 updates were applied, that of
    the entropy in a run's first five.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self._start: list[Mapping[str, float]] = []
        self._past: deque[Mapping[str, float]] = deque(maxlen=_MEMORY)

    def note(self, refused: str | None, metrics: Mapping[str, float]) -> None:
        """Remember a journalled update; a refused one is no measure for others."""
        known = metrics if refused is None else {}
        self._past.append(known)
        if len(self._start) < _LEAST:
            self._start.append(known)

    def choose_rows(self, count: int) -> np.ndarray:
        """The rows of a batch of ``count`` that are read before and after an update."""
        return np.arange(0, count, math.ceil(count / self.settings.rows))

    def check_gradient(self, norm: float) -> str | None:
        """Why a gradient of this norm (before it is clipped) is not followed."""
        # Zeros do not count: a batch without advantages has no gradient.
        norms = [value for metrics in self._past if (value := metrics.get("policy/gradient_norm"))]
        bound, usual = self.settings.gradient_norm, median(norms) if len(norms) >= _LEAST else math.inf
        if not bound or norm <= bound * usual:
            return None
        return f"gradient norm {norm:.3g} is above learner.guards.gradient_norm = {bound:g} times the usual {usual:.3g}"

    def compare(self, before: Reading, after: Reading, ids: Sequence[str]) -> tuple[str | None, dict[str, float]]:
        """Why the update between two readings of the same rows is undone, and the figures of the step.

        ``ids`` of the rows. The KL divergence is k3 on the batch's tokens, which were sampled from the policy before.
        """
        old, new = torch.cat(before.logprobs).double(), torch.cat(after.logprobs).double()
        lengths = torch.tensor([len(row) for row in before.logprobs])
        change = (new - old).abs().cpu()
        entropy = float(torch.cat(after.entropies).double().mean())
        ratio = float(change.max().exp())
        at = ids[int(torch.repeat_interleave(lengths)[change.argmax()])]  # argmax finds NaN first
        found = {
            "policy/step_kl": float(kl_k3(old, new).mean()),
            "policy/step_ratio_largest": ratio,
            "policy/step_entropy_change": entropy - float(torch.cat(before.entropies).double().mean()),
            "policy/entropy_after": entropy,
        }
        if not all(map(math.isfinite, found.values())):
            return f"the policy after the update is not finite, as in rollout {at}", found
        bounds = self.settings
        for what, value, bound, name in (
            ("KL of the update", found["policy/step_kl"], bounds.kl, "kl"),
            (f"probability ratio in rollout {at}", ratio, bounds.ratio, "ratio"),
            ("entropy change", abs(found["policy/step_entropy_change"]), bounds.entropy_change, "entropy_change"),
        ):
            if bound and value > bound:
                return f"{what} {value:.3g} is above learner.guards.{name} = {bound:g}", found
        # A policy beyond this bound may come back.
        bound, usual = bounds.entropy_growth, self._start_entropy()
        if bound and entropy > bound * usual and found["policy/step_entropy_change"] > 0:
            reason = f"entropy {entropy:.3g} is above learner.guards.entropy_growth = {bound:g} times"
            return f"{reason} the {usual:.3g} of the run's start", found
        return None, found

    def _start_entropy(self) -> float:
        """Infinite while it is not known."""
        known = [metrics["policy/entropy_after"] for metrics in self._start if "policy/entropy_after" in metrics]
        return median(known) if known and len(self._start) == _LEAST else math.inf
