"""Bounds on an update: one that would ruin the run is refused, for a reason that names what passed which bound."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

import numpy as np
import torch
from torch import Tensor

from agpo.objectives.losses import kl_k3
from agpo.settings import GuardSettings

_MEMORY = 25  # updates that a running median is taken of
_ACCURACY = "rollout/accuracy"
_MOVED = 0.2  # nats: a token whose log-prob changes by more has moved (our choice); a mean of k3 few tokens decide
_LEAST = 5  # fewer applied ones are no measure; so many are the start of a run
_FEWEST_ROWS = 16  # read of a small batch, of which more than a quarter would cost too much (our choice)


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
    same updates. The bounds of gradient and step are off while fewer than five of the last 25 updates were applied,
    that of the entropy in a run's first five.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self._start: list[Mapping[str, float]] = []
        self._past: deque[Mapping[str, float]] = deque(maxlen=_MEMORY)

    def note(self, refused: str | None, metrics: Mapping[str, float]) -> None:
        """Remember a journalled update; a refused or skipped one is no measure for others."""
        known = metrics if refused is None and not metrics.get("policy/skipped") else {}
        self._past.append(known)
        if len(self._start) < _LEAST:
            self._start.append(known)

    def choose_rows(self, count: int) -> np.ndarray:
        """The rows of a batch of ``count`` that are read before and after an update."""
        read = min(count, self.settings.rows, max(_FEWEST_ROWS, count // 4))
        return np.arange(read) * count // max(read, 1)

    def check_mismatch(self, divergence: float | None) -> str | None:
        """Why a batch is not learned from whose sampler is so far from the learner; none where they do not compare."""
        bound = self.settings.mismatch
        if not bound or divergence is None or divergence <= bound:
            return None
        return (
            f"KL(sampler ‖ learner) {divergence:.3g} per token is above learner.guards.mismatch = {bound:g}: the "
            "sampler's log-probs are not the learner's, it has other weights, another precision or leaves "
            "tokens out; saved rollouts of another policy need learner.guards.mismatch=0"
        )

    def check_gradient(self, norm: float) -> str | None:
        """Why a gradient of this norm (before it is clipped) is not followed."""
        bound, usual = self.settings.gradient_norm, self._usual("policy/gradient_norm")
        if not bound or norm <= bound * usual:
            return None
        return f"gradient norm {norm:.3g} is above learner.guards.gradient_norm = {bound:g} times the usual {usual:.3g}"

    def check_step(self, size: float) -> str | None:
        """Why an optimiser step of this size (see `measure_step`) is not taken."""
        bound, usual = self.settings.step, self._usual("policy/step_size")
        if not bound or size <= bound * usual:
            return None
        return (
            f"step of {size:.3g} times the rate (root mean square over the weights) is above learner.guards.step = "
            f"{bound:g} times the usual {usual:.3g}"
        )

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
            "policy/step_moved": float((change > _MOVED).double().mean()),
            "policy/step_ratio_largest": ratio,
            "policy/step_entropy_change": entropy - float(torch.cat(before.entropies).double().mean()),
            "policy/entropy_after": entropy,
        }
        if not all(map(math.isfinite, found.values())):
            return f"the policy after the update is not finite, as in rollout {at}", found
        bounds = self.settings
        for what, value, bound, name in (
            ("KL of the update", found["policy/step_kl"], bounds.kl, "kl"),
            ("share of moved tokens", found["policy/step_moved"], bounds.moved, "moved"),
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

    def check_run(self) -> str | None:
        """Why a run should not go on: its answers are much worse than at its start, beyond three standard errors.

        Our choice, for what ruins a policy slowly: by accuracy, because neither entropy nor KL need show it.
        """
        before, now = ([one[_ACCURACY] for one in part if _ACCURACY in one] for part in (self._start, self._past))
        if len(self._past) < _MEMORY or min(len(before), len(now)) < _LEAST:
            return None
        start, value, bound = fmean(before), fmean(now), self.settings.accuracy
        error = math.sqrt(variance(before) / len(before) + variance(now) / len(now))
        if value >= bound * start or start - value <= 3 * error:
            return None
        reason = (
            f"accuracy {value:.3g} of the last {len(now)} applied updates is below learner.guards.accuracy = {bound:g}"
        )
        return f"{reason} times the {start:.3g} of the run's start"

    def _usual(self, figure: str) -> float:
        """Median of the last applied updates; infinite while there are too few."""
        # Without a gradient, as of a batch without advantages, there is only the momentum's rest: no measure.
        values = [
            metrics[figure] for metrics in self._past if figure in metrics and metrics.get("policy/gradient_norm")
        ]
        return median(values) if len(values) >= _LEAST else math.inf

    def _start_entropy(self) -> float:
        """Infinite while it is not known."""
        known = [metrics["policy/entropy_after"] for metrics in self._start if "policy/entropy_after" in metrics]
        return median(known) if known and len(self._start) == _LEAST else math.inf
