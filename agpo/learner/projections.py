"""Whether a model's weights may be read past its modules."""

from __future__ import annotations

from typing import Any

import torch

_NAMES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}


def has_plain_projections(model: Any) -> bool:
    """Whether every linear map is just its weight and bias: adapters and quantised layers are more than that."""
    return all(
        type(module) is torch.nn.Linear for name, module in model.named_modules() if name.split(".")[-1] in _NAMES
    )
