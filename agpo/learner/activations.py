"""Activation checkpointing: layers that keep no activations and compute them again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def checkpoint_layers(model: Any) -> None:
    """Make every layer of a `transformers` model keep its input only; without gradients nothing changes.

    The model's own switch acts in training mode only, which would turn dropout on; a policy is in evaluation mode.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"learner.checkpoint_activations = true: a model of type {model.config.model_type} has no layers that "
            "transformers can checkpoint; set it to false"
        )
    for layer in layers:
        layer.forward = partial(_run, layer.forward)


def _run(forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **options)
