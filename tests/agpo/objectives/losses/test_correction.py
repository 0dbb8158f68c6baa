from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from agpo.objectives.losses import Correction

# Ratios 4, 1/4, 2 of the tokens of row 0 (product 2), 0.2 of row 1, 1 of row 2.
SAMPLED = torch.tensor([-3.0, -1.0, -2.0, -0.5, -1.0], dtype=torch.float64)
RATIOS = torch.tensor([4.0, 0.25, 2.0, 0.2, 1.0], dtype=torch.float64)
ROWS = torch.tensor([0, 0, 0, 1, 2])


def weigh(**options: Any) -> tuple[list[float], list[bool]]:
    correction = Correction(**options)
    arguments = SAMPLED + RATIOS.log(), SAMPLED, ROWS
    return correction.token_weights(*arguments).tolist(), correction.held(*arguments).tolist()


@pytest.mark.parametrize(
    ("options", "weights", "held"),
    [
        ({}, [3, 0.25, 2, 0.2, 1], [0]),
        ({"mode": "mask"}, [0, 0.25, 2, 0.2, 1], [0]),
        ({"floor": 0.5}, [3, 0.5, 2, 0.5, 1], [0, 1, 3]),
        ({"mode": "mask", "floor": 0.5, "cap": 5.0}, [4, 0, 2, 0, 1], [1, 3]),
        ({"level": "sequence"}, [2, 2, 2, 0.2, 1], []),
        ({"level": "sequence", "cap": 1.5}, [1.5, 1.5, 1.5, 0.2, 1], [0, 1, 2]),
        ({"level": "sequence", "mode": "mask", "cap": 1.5, "floor": 0.5}, [0, 0, 0, 0, 1], [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_weights(options: dict[str, Any], weights: list[float], held: list[int]) -> None:
    found, outside = weigh(**options)
    assert found == pytest.approx(weights, rel=1e-12)
    assert outside == [index in held for index in range(5)]


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_equal_log_probs_weigh_1(level: Any, mode: Any) -> None:
    weights = Correction(level=level, mode=mode).token_weights(SAMPLED, SAMPLED, ROWS)
    assert weights.tolist() == [1.0] * 5


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_untruncated_weights_make_the_samplers_mean_the_trainers(level: Any) -> None:
    """Over all two-token answers, weighted by the sampler's probabilities: Σ q w f is Σ p f (for a token: its own)."""
    sampler, trainer = (torch.tensor(values, dtype=torch.float64) for values in ([0.7, 0.2, 0.1], [0.5, 0.1, 0.4]))
    answers = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    value = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    rows = torch.arange(9).repeat_interleave(2)
    correction = Correction(level=level, cap=1e6)

    def log(p: Tensor) -> Tensor:
        return p.log()[answers].flatten()

    weights = correction.token_weights(log(trainer), log(sampler), rows).view(9, 2)
    mean = (sampler[answers].prod(1)[:, None] * weights * value[answers]).sum(0)
    expected = (trainer * value).sum()
    torch.testing.assert_close(mean, expected.expand(2), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "options", [{"cap": 0.9}, {"cap": math.inf}, {"floor": 1.1}, {"floor": -0.1}, {"mode": "clip"}, {"low": 1}], ids=str
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        Correction(**options)
