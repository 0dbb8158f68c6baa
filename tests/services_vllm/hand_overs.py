"""What every update of a run that samples by vLLM must say of its hand-over."""

from __future__ import annotations

from collections.abc import Iterable

from agpo.journal import Update


def check_hand_overs(updates: Iterable[Update]) -> None:
    for update in updates:
        print({name: value for name, value in update.metrics.items() if "sampler" in name or "time/s" in name})
        assert update.refused is None
        assert update.metrics["policy/sampler_mismatch_kl"] < 1e-9
        assert update.metrics["policy/sampler_mismatch_largest"] < 1e-4
        assert update.metrics["rollout/probe_difference"] < 1e-3
