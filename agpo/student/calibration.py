"""Calibration: the temperature that makes confidences true, and how far from true they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FloatArray = NDArray[np.float64]
Levels = NDArray[np.intp]

BINS = 15
_SMALLEST = 1e-12


class Calibration(BaseModel):
    """Of probabilities against gold labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ece: float  # expected calibration error: mean distance of confidence and accuracy over 15 bins of confidence
    brier: float  # mean squared distance of the probabilities from the gold label's, 0 … 2
    aurc: float  # mean share of errors among the most confident pairs, over all numbers of pairs


def fit_temperature(probabilities: FloatArray, gold: Levels) -> float:
    """The T for which softmax(log p / T) gives the gold labels the highest likelihood (Guo et al., arXiv 1706.04599).

    Between 1/20 and 20. ``probabilities``: [pairs, labels]; ``gold``: levels, [pairs].
    """
    from scipy.optimize import minimize_scalar

    def loss(exponent: float) -> float:
        cooled = cool(probabilities, float(np.exp(exponent)))
        return float(-np.log(np.maximum(cooled[np.arange(len(gold)), gold], _SMALLEST)).mean())

    bound = np.log(20.0)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def cool(probabilities: FloatArray, temperature: float) -> FloatArray:
    """softmax(log p / T), [pairs, labels]: the probabilities that logits divided by T give."""
    logits = np.log(np.maximum(probabilities, _SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    cooled: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return cooled


def measure_calibration(probabilities: FloatArray, gold: Levels) -> Calibration:
    _, confidence, accuracy, share = bin_confidences(probabilities, gold)
    certain = np.eye(probabilities.shape[1])[gold]
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    errors = np.cumsum((probabilities.argmax(axis=1) != gold)[order]) / np.arange(1, len(gold) + 1)
    return Calibration(
        ece=float(share @ np.abs(confidence - accuracy)),
        brier=float(((probabilities - certain) ** 2).sum(axis=1).mean()),
        aurc=float(errors.mean()),
    )


def bin_confidences(probabilities: FloatArray, gold: Levels) -> tuple[Levels, FloatArray, FloatArray, FloatArray]:
    """The bins of equal width that hold a pair, with mean confidence, accuracy and share of the pairs of each."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == gold
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    held = np.flatnonzero(count)
    mean = np.bincount(place, confidence, BINS)[held] / count[held]
    accuracy = np.bincount(place, right, BINS)[held] / count[held]
    return held, mean, accuracy, count[held] / len(gold)
