"""Alarms: what looks wrong in the latest steps of a training run, from its journal alone.

An alarm stops nothing: it names a figure, the steps and the bound, for whoever watches the run. All bounds are our
choice. Negative-dominant runs that collapse show it by ever more unsolved problems while the entropy rises (A-GRAE,
arXiv 2602.05548).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from statistics import fmean, pvariance
from typing import Literal

from pydantic import BaseModel, ConfigDict

from agpo.journal import Update

_MOST, _LEAST = 25, 5  # steps that are compared; a run of fewer than twice the least has no alarm
_SURE = 3.0  # standard errors
_NOTHING_TO_DECIDE = 0.9  # accuracy above which a low entropy is what a good policy has


class Alarm(BaseModel):
    """The mean ``value`` of ``figure`` in steps ``first_step`` to ``last_step`` is on the wrong side of ``bound``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    figure: str  # a metric of the journal
    first_step: int
    last_step: int
    value: float
    bound: float
    message: str


@dataclass(frozen=True)
class _Rule:
    name: str
    figure: str
    what: str
    test: Literal["above", "below", "start plus", "start times"]  # the latter two compare with the run's first steps
    bound: float
    falling: bool = False


_RULES = (
    _Rule("unsolved", "rollout/all_wrong_share", "share of problems without a right answer", "start plus", 0.1),
    _Rule("entropy_collapse", "policy/entropy", "token entropy", "start times", 0.2, falling=True),
    _Rule("length_explosion", "rollout/length_mean", "mean length of the answers", "start times", 2.0),
    _Rule("truncated", "rollout/truncated_share", "share of truncated answers", "start plus", 0.1),
    _Rule("repetition", "rollout/repetition", "share of bigrams that an answer repeats", "start plus", 0.2),
    _Rule(
        "unverifiable",
        "verify/unverifiable_by_response_share",
        "share of answers that cannot be verified as they are written",
        "start plus",
        0.05,
    ),
    _Rule("refused", "policy/refused", "share of refused updates", "above", 0.2),
    _Rule("skipped", "policy/skipped", "share of batches without a usable row", "above", 0.2),
    _Rule("sampler_mismatch", "policy/sampler_mismatch_kl", "KL(sampler ‖ learner) per token", "above", 1e-3),
    _Rule("sampler_weights", "policy/sampler_ess", "effective share of the tokens", "below", 0.95, falling=True),
)


def find_alarms(updates: Sequence[Update]) -> list[Alarm]:
    """The alarms after these updates of a run (from step 0, in order), in a fixed order.

    The means of the latest steps are compared with a bound or with the run's first steps: 25 each, or half of the run.
    A change since the start counts only beyond three standard errors of the two means.
    """
    count = min(_MOST, len(updates) // 2)
    if count < _LEAST:
        return []
    first, last = updates[:count], updates[-count:]
    found = (_check(rule, first, last) for rule in _RULES)
    return [alarm for alarm in found if alarm is not None]


def _check(rule: _Rule, first: Sequence[Update], last: Sequence[Update]) -> Alarm | None:
    before, now = _values(first, rule.figure), _values(last, rule.figure)
    if not before or not now:
        return None
    start, value, bound = fmean(before), fmean(now), rule.bound
    message = f"{rule.what} {value:.3g}"
    if rule.test in ("start plus", "start times"):
        if abs(value - start) <= _SURE * _error(before, now):
            return None
        bound = start + bound if rule.test == "start plus" else start * bound
        message += f", at the start {start:.3g}"
    if not (value < bound if rule.falling else value > bound):
        return None
    if rule.name == "entropy_collapse" and fmean(_values(last, "rollout/accuracy") or [0]) > _NOTHING_TO_DECIDE:
        return None
    message += f"; alarm {'below' if rule.falling else 'above'} {bound:.3g}"
    if rule.name == "unsolved" and _rises(entropies := [_values(part, "policy/entropy") for part in (first, last)]):
        message += "; the token entropy rises from {:.3g} to {:.3g}: a collapse".format(*map(fmean, entropies))
    steps = last[0].step, last[-1].step
    return Alarm(
        name=rule.name,
        figure=rule.figure,
        first_step=steps[0],
        last_step=steps[1],
        value=value,
        bound=bound,
        message=f"steps {steps[0]} to {steps[1]}: {message}",
    )


def _values(updates: Sequence[Update], figure: str) -> list[float]:
    return [value for update in updates if isfinite(value := update.metrics.get(figure, inf))]


def _rises(parts: list[list[float]]) -> bool:
    return all(parts) and fmean(parts[1]) - fmean(parts[0]) > _SURE * _error(*parts)


def _error(before: list[float], now: list[float]) -> float:
    """Standard error of the difference of the two means."""
    return sqrt(sum(pvariance(values) / max(1, len(values) - 1) for values in (before, now)))
