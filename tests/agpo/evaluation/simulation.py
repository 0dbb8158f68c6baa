"""Simulated policies: success rates per problem, and the counts that sampling them gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agpo.records import Counts

Rates = NDArray[np.float64]


def draw_rates(problems: int, random: np.random.Generator, easy: float = 0.4, hard: float = 0.8) -> Rates:
    """Success rates of a base policy, Beta(easy, hard): many hard problems, some solved ones."""
    return random.beta(easy, hard, problems)


def shift_rates(rates: Rates, shift: float, noise: float, random: np.random.Generator) -> Rates:
    """Another policy on the same problems: log-odds moved by ``shift`` with normal noise."""
    rates = rates.clip(1e-9, 1 - 1e-9)
    moved = np.log(rates / (1 - rates)) + shift + noise * random.standard_normal(rates.shape)
    return 1 / (1 + np.exp(-moved))


def exchange_problems(one: Rates, other: Rates, random: np.random.Generator) -> tuple[Rates, Rates]:
    """Two policies that are equally good at every k, because each problem's two rates go to either side at random."""
    swapped = random.random(len(one)) < 0.5
    return np.where(swapped, other, one), np.where(swapped, one, other)


def lose_problems(rates: Rates, share: float, random: np.random.Generator) -> Rates:
    """The same policy after it lost a share of all problems completely."""
    return np.where(random.random(len(rates)) < share, 0.0, rates)


def sample_counts(rates: Mapping[str, Rates], n: int, random: np.random.Generator) -> pl.DataFrame:
    """`records.Counts` of n verified samples a problem, by set."""
    correct = np.concatenate([random.binomial(n, chances) for chances in rates.values()])
    return make_counts([name for name, chances in rates.items() for _ in chances], [n] * len(correct), correct.tolist())


def make_counts(
    sets: list[str], n: list[int], correct: list[int], unverifiable: list[int] | None = None
) -> pl.DataFrame:
    unverifiable = unverifiable or [0] * len(n)
    return Counts.validate(
        pl.DataFrame(
            {
                "problem_id": [f"{name}-{row}" for row, name in enumerate(sets)],
                "set": sets,
                "n": n,
                "correct": correct,
                "wrong": [drawn - right - lost for drawn, right, lost in zip(n, correct, unverifiable, strict=True)],
                "unverifiable": unverifiable,
                "truncated": 0,
                "missing": 0,
                "distinct_correct": correct,
                "tokens": [10 * drawn for drawn in n],
                "logprob": [-4.0 * drawn for drawn in n],
            }
        ),
        cast=True,
    )
