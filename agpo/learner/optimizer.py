"""The optimiser's state as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


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
