"""Weight interpolation between base and trained policy (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

from typing import Any

import torch

from agpo.learner.policy import load_policy, save_policy
from agpo.settings import Interpolation
from agpo.stages import Work


@torch.no_grad()
def interpolate(settings: Interpolation, work: Work) -> dict[str, Any]:
    """Stage: base and trained policy → θ = (1 − weight) · base + weight · trained, per tensor; no training cost."""
    start, _ = load_policy(work.inputs["base"], "cpu")
    end, tokenizer = load_policy(work.inputs["trained"], "cpu")
    first, last = dict(start.named_parameters()), dict(end.named_parameters())  # a tied tensor is named once
    if first.keys() != last.keys() or any(first[name].shape != last[name].shape for name in first):
        raise ValueError("base and trained policy have different architectures and cannot be interpolated")
    for name, parameter in last.items():
        parameter.copy_(torch.lerp(first[name], parameter, settings.weight))
    save_policy(end, tokenizer, work.out)
    return {"rows": 1, "metrics": {"interpolate/weight": settings.weight}}
