"""Draws that are the same in every Python version: only ``Random.random`` promises its stream."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import TypeVar

T = TypeVar("T")


def pick(random: Random, options: Sequence[T]) -> T:
    return options[int(random.random() * len(options))]


def pick_weighted(random: Random, weights: Mapping[T, float]) -> T:
    """One of the keys; weights need not sum to 1."""
    options = list(weights)
    bounds = list(accumulate(weights.values()))
    return options[min(bisect(bounds, random.random() * bounds[-1]), len(options) - 1)]


def shuffle(random: Random, items: Iterable[T]) -> list[T]:
    return [item for _, _, item in sorted((random.random(), place, item) for place, item in enumerate(items))]


def happens(random: Random, probability: float) -> bool:
    return random.random() < probability
