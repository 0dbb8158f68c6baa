"""What a policy says to fixed prompts: shows whether an engine samples the weights that it should."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from agpo.rollout.randomness import philox

PROMPTS, NEW_TOKENS = 8, 8
_PROMPT_TOKENS = 40  # more than a block of vLLM's prefix cache, so that a stale one shows


@dataclass(frozen=True)
class Fingerprint:
    """The likeliest tokens after each prompt, one after the other, and their log-probs at temperature 1."""

    ids: tuple[tuple[int, ...], ...]  # [prompts][new tokens]
    logprobs: tuple[tuple[float, ...], ...]  # of the same shape, natural log

    @property
    def digest(self) -> str:
        """Of the tokens; log-probs are equal up to rounding only."""
        return hashlib.sha256(repr(self.ids).encode()).hexdigest()

    def count_equal(self, other: Fingerprint) -> int:
        """How many prompts got the same tokens."""
        return sum(mine == theirs for mine, theirs in zip(self.ids, other.ids, strict=True))

    def difference(self, other: Fingerprint) -> float:
        """Largest difference of two log-probs, in nats.

        An answer is compared up to the first token that differs, with that one: its probability is still that of the
        likeliest token after the same text, and nearly the same where only rounding decided between two.
        """
        largest = 0.0
        for mine, theirs, own, their in zip(self.ids, other.ids, self.logprobs, other.logprobs, strict=True):
            parts = [place for place, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1]]
            end = parts[0] + 1 if parts else len(mine)
            differences = np.abs(np.subtract(own[:end], their[:end]))
            largest = np.maximum(largest, differences.max())  # not a number stays one
        return float(largest)


def check_fingerprint(engine: Fingerprint, trainer: Fingerprint, largest: float) -> float:
    """The difference; RuntimeError where it is above ``largest`` nats: the engine samples other weights."""
    difference = engine.difference(trainer)
    if not difference <= largest:
        raise RuntimeError(
            f"the engine does not sample the trainer's policy: log-probs after the fixed prompts differ by "
            f"{difference:.3g} nats, more than {largest:g}; {engine.count_equal(trainer)} of {PROMPTS} answers agree"
        )
    return difference


def probe_prompts(vocabulary: int, positions: int | None) -> list[list[int]]:
    """The fixed prompts, token ids below ``vocabulary``; shorter where the model's ``positions`` need it."""
    length = _PROMPT_TOKENS if positions is None else max(1, min(_PROMPT_TOKENS, positions - NEW_TOKENS))
    counters = np.zeros((PROMPTS, length, 4), np.uint32)
    counters[..., 0] = np.arange(PROMPTS)[:, None]
    counters[..., 1] = np.arange(length)
    found: list[list[int]] = (philox(counters, (0, 0))[..., 0] % np.uint32(vocabulary)).tolist()
    return found
