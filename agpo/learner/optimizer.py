"""The optimiser's state as safetensors, and what an update may have to put back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save_optimizer(model: Any, optimizer: torch.optim.Optimizer, file: Path) -> None:
    from safetensors.torch import save_file

    names = {parameter: name for name, parameter in model.named_parameters()}
    save_file(
        {
            f"{names[parameter]}/{kind}": value.contiguous()
            for parameter, entry in optimizer.state.items()
            for kind, value in entry.items()
        },
        file,
    )


def load_optimizer(model: Any, optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Fill a fresh optimiser of the same model; a name that the model lacks is an error."""
    from safetensors.torch import load_file

    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, value in load_file(file).items():
        parameter, kind = name.rsplit("/", 1)
        if parameter not in parameters:
            raise ValueError(f"the optimiser state {file.name} names {parameter}, which the model does not have")
        optimizer.state[parameters[parameter]][kind] = value.to(parameters[parameter].device)


@dataclass(frozen=True)
class Kept:
    """Weights and optimiser state at one moment, copied to the CPU's memory."""

    weights: list[Tensor]
    state: dict[Tensor, dict[str, Tensor]]


def copy_state(optimizer: torch.optim.Optimizer) -> Kept:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return Kept(
        [_copy(parameter) for parameter in parameters],
        {
            parameter: {kind: _copy(value) for kind, value in optimizer.state[parameter].items()}
            for parameter in parameters
            if parameter in optimizer.state
        },
    )


@torch.no_grad()
def put_back(optimizer: torch.optim.Optimizer, kept: Kept) -> None:
    """Make weights and optimiser state bit by bit what they were."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, weights in zip(parameters, kept.weights, strict=True):
        parameter.copy_(weights)
        if parameter not in kept.state:
            optimizer.state.pop(parameter, None)
            continue
        for kind, value in kept.state[parameter].items():
            optimizer.state[parameter][kind].copy_(value)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
