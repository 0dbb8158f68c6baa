"""Advantages and losses of TRL 1.16 and verl 0.9.1, called on a padded batch without their trainers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

LENGTH = 12


@dataclass(frozen=True)
class PaddedBatch:
    """Sixteen responses of up to `LENGTH` tokens in four groups, fp64, padded on the right."""

    new: Tensor  # [rows, LENGTH] log-probs with gradient
    old: Tensor
    reference: Tensor
    mask: Tensor  # [rows, LENGTH] 1 for response tokens
    rewards: Tensor  # [rows] ±1
    groups: Tensor  # [rows]
    advantages: Tensor  # [rows]

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(1).long()

    @property
    def rows(self) -> Tensor:
        """The row of each response token, in the order of ``new[mask]``."""
        return torch.arange(len(self.mask)).repeat_interleave(self.lengths)

    def tokens(self, values: Tensor) -> Tensor:
        return values[self.mask.bool()]


def draw_batch(seed: int, rows: int = 16, groups: int = 4) -> PaddedBatch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, LENGTH + 1, (rows,), generator=generator)
    lengths[0] = LENGTH
    old = -normal(rows, LENGTH).abs()
    return PaddedBatch(
        new=(old + 0.4 * normal(rows, LENGTH)).requires_grad_(),
        old=old,
        reference=old + 0.4 * normal(rows, LENGTH),
        mask=(torch.arange(LENGTH) < lengths[:, None]).double(),
        rewards=torch.randint(0, 2, (rows,), generator=generator).double() * 2 - 1,
        groups=torch.arange(rows) % groups,
        advantages=normal(rows),
    )


def verl_advantages(name: str, batch: PaddedBatch, **options: Any) -> Tensor:
    """[rows] of ``compute_NAME_outcome_advantage``; the reward stands on the last token."""
    core = import_module("verl.trainer.ppo.core_algos")
    by_token = torch.zeros_like(batch.mask)
    by_token[torch.arange(len(batch.mask)), batch.lengths - 1] = batch.rewards
    if name != "reinforce_plus_plus":
        options["index"] = np.array([str(group) for group in batch.groups.tolist()])
    compute = getattr(core, f"compute_{name}_outcome_advantage")
    found, _ = compute(token_level_rewards=by_token, response_mask=batch.mask, **options)
    return found[:, 0]


def verl_loss(name: str, batch: PaddedBatch, mode: str, **options: Any) -> Tensor:
    """The policy loss of a registered name, aggregated by a mode of ``agg_loss``."""
    core, configs = import_module("verl.trainer.ppo.core_algos"), import_module("verl.workers.config")
    config = configs.ActorConfig(
        strategy="fsdp", rollout_n=4, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=mode, **options
    )
    loss, *_ = core.get_policy_loss_fn(name)(
        old_log_prob=batch.old,
        log_prob=batch.new,
        advantages=batch.advantages[:, None].expand_as(batch.new),
        response_mask=batch.mask,
        loss_agg_mode=mode,
        config=config,
    )
    return loss


def verl_kl(kind: str, batch: PaddedBatch) -> Tensor:
    """[rows, LENGTH]"""
    found: Tensor = import_module("verl.trainer.ppo.core_algos").kl_penalty(batch.new, batch.reference, kind)
    return found


def trl_loss(
    loss_type: str,
    level: str,
    batch: PaddedBatch,
    *,
    low: float = 0.2,
    high: float = 0.28,
    delta: float | None = None,
    beta: float = 0.0,
) -> Tensor:
    """``GRPOTrainer._compute_loss`` of an object that was never constructed and has what the method reads."""
    trainer = object.__new__(import_module("trl").GRPOTrainer)
    vars(trainer).update(
        loss_type=loss_type,
        importance_sampling_level=level,
        epsilon_low=low,
        epsilon_high=high,
        beta=beta,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        aux_loss_enabled=False,
        max_completion_length=LENGTH,
        current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x),
        args=SimpleNamespace(
            delta=delta,
            use_bias_correction_kl=False,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
        ),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (batch.new, torch.zeros_like(batch.new), None),
    )
    ids = torch.ones_like(batch.mask).long()
    loss: Tensor = trainer._compute_loss(
        None,
        {
            "prompt_ids": ids[:, :1],
            "prompt_mask": ids[:, :1],
            "completion_ids": ids,
            "completion_mask": batch.mask,
            "advantages": batch.advantages,
            "old_per_token_logps": batch.old,
            "ref_per_token_logps": batch.reference,
            "num_items_in_batch": batch.mask.sum(),
        },
    )
    return loss
