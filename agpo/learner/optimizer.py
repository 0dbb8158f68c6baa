"""The optimiser's state as safetensors, the step that it is about to take, and what an update may have to put back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agpo.learner.buckets import cut_buckets


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


@torch.no_grad()
def predict_step(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, ...]]:
    """What AdamW (arXiv 1711.05101) will add to each parameter, from the gradients and moments as they are.

        m′ = β₁ m + (1 − β₁) g        v′ = β₂ v + (1 − β₂) g²        t′ = t + 1
        change = −rate · (m′ / (1 − β₁^t′) / (√(v′ / (1 − β₂^t′)) + ε) + decay · parameter)

    In the order of the parameters, which all have gradients, a bucket at a time.
    """
    for group in optimizer.param_groups:
        first, second = group["betas"]
        for bucket in cut_buckets(group["params"]):
            gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
            states = [optimizer.state.get(parameter) or _start(parameter) for parameter in bucket]
            steps = [step + 1 for step in torch.stack([state["step"] for state in states]).tolist()]
            changes = torch._foreach_lerp([state["exp_avg"] for state in states], gradients, 1 - first)
            scales = torch._foreach_mul([state["exp_avg_sq"] for state in states], second)
            torch._foreach_addcmul_(scales, gradients, gradients, 1 - second)
            torch._foreach_sqrt_(scales)
            by_rate = [(first**step - 1) / group["lr"] for step in steps]
            roots = [math.sqrt(1 - second**step) for step in steps]
            torch._foreach_mul_(scales, [factor / root for factor, root in zip(by_rate, roots, strict=True)])
            torch._foreach_add_(scales, [group["eps"] * factor for factor in by_rate])
            torch._foreach_div_(changes, scales)
            if group["weight_decay"]:
                torch._foreach_add_(changes, bucket, alpha=-group["lr"] * group["weight_decay"])
            yield tuple(changes)


def measure_step(optimizer: torch.optim.Optimizer) -> float:
    """Root mean square of the weights' change in the step that AdamW is about to take, in units of the learning rate.

    Near 1 where all weights move one way, less under noise, and the same whatever the rate is.
    """
    norms, count = list[Tensor](), 0
    for changes in predict_step(optimizer):
        norms += torch._foreach_norm(changes)
        count += sum(map(torch.numel, changes))
    total = float(torch.linalg.vector_norm(torch.stack(norms)))
    return total / math.sqrt(count) / float(optimizer.param_groups[0]["lr"])


def _start(parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's state before its first step."""
    zeros = torch.zeros_like(parameter)
    return {"exp_avg": zeros, "exp_avg_sq": zeros, "step": torch.zeros(())}


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
