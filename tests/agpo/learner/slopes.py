"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

_STEP = 1e-5


def assert_slopes(
    model: Any, gradients: Sequence[Tensor], loss: Callable[[], Tensor], *, directions: int, rel: float
) -> None:
    """Compare the slope of ``loss`` along random directions with that of the gradients of the model's parameters.

    The parameters (fp64) are left where the last step put them.
    """
    parameters = list(model.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    for seed in range(directions):
        generator = torch.Generator().manual_seed(seed)
        direction = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in start]
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, origin, towards in zip(parameters, start, direction, strict=True):
                    parameter.copy_(origin + sign * _STEP * towards)
                values.append(loss())
        slope = sum((part * towards).sum() for part, towards in zip(gradients, direction, strict=True))
        assert float(slope) == pytest.approx(float(values[0] - values[1]) / (2 * _STEP), rel=rel)
