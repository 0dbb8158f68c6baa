"""Advantages and losses of TRL 1.16 and verl 0.9.1, called without their trainers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from importlib import import_module
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.batch import TokenBatch


def verl_advantages(name: str, batch: TokenBatch, **options: Any) -> Tensor:
    """[rows] of ``compute_NAME_outcome_advantage``; the reward stands on the last token."""
    core = import_module("verl.trainer.ppo.core_algos")
    by_token = torch.zeros(batch.mask.shape, dtype=torch.float64)
    by_token[torch.arange(len(by_token)), batch.lengths - 1] = batch.rewards
    if name != "reinforce_plus_plus":
        options["index"] = np.array([str(group) for group in batch.groups.tolist()])
    compute = getattr(core, f"compute_{name}_outcome_advantage")
    found: Tensor = compute(token_level_rewards=by_token, response_mask=batch.mask, **options)[0]
    return found[:, 0]


def verl_subset_advantages(batch: TokenBatch, k: int) -> Tensor:
    """[rows] verl's GRPO over all subsets of k rows of a group, each scored by its best row; a row's mean over its own.

    This is Pass@k training before its sum is done in closed form (arXiv 2508.10751). There the standard deviation is
    the population's, here the sample's: their ratio c gives the closed form's ε its place. A group of k has one subset
    and gives 0.
    """
    found = torch.zeros_like(batch.rewards)
    for group in range(int(batch.groups.max()) + 1):
        members = (batch.groups == group).nonzero()[:, 0].tolist()
        subsets = list(combinations(members, k))
        if len(subsets) < 2:
            continue
        ones = torch.ones(len(subsets), dtype=torch.long)
        best = torch.stack([(batch.rewards[list(subset)] > 0).double().max() for subset in subsets])
        drawn = replace(batch, rewards=best, groups=0 * ones, lengths=ones)
        c = (len(subsets) / (len(subsets) - 1)) ** 0.5
        of_subset = c * verl_advantages("grpo", drawn, epsilon=1e-6 * c)
        for row in members:
            found[row] = of_subset[[row in subset for subset in subsets]].mean()
    return found


def verl_loss(name: str, mode: str, batch: TokenBatch, *, kl: str = "", entropy: float = 0.0, **options: Any) -> Tensor:
    """The policy loss of a registered name, less an entropy bonus, plus 0.1 of a KL estimate: `verl.workers.utils`."""
    core, configs = import_module("verl.trainer.ppo.core_algos"), import_module("verl.workers.config")
    config = configs.ActorConfig(
        strategy="fsdp", rollout_n=4, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=mode, **options
    )
    new = batch.pad(batch.new)
    loss: Tensor = core.get_policy_loss_fn(name)(
        old_log_prob=batch.pad(batch.old),
        log_prob=new,
        advantages=batch.advantages[:, None].expand_as(new),
        response_mask=batch.mask,
        loss_agg_mode=mode,
        config=config,
    )[0]
    loss = loss - entropy * core.agg_loss(batch.pad(batch.entropy), batch.mask, mode)
    if kl:
        divergence = core.kl_penalty(new, batch.pad(batch.reference), kl)
        loss = loss + 0.1 * core.agg_loss(divergence, batch.mask, mode)
    return loss


def trl_advantages(batch: TokenBatch, scale_rewards: str) -> Tensor:
    """[rows] of ``GRPOTrainer._generate_and_score_completions``, a group at a time: TRL has one size for all."""
    found = torch.empty_like(batch.rewards)
    for group in range(int(batch.groups.max()) + 1):
        rows = batch.groups == group
        count = int(rows.sum())
        completions = [[1] * length for length in batch.lengths[rows].tolist()]
        trainer = _bare_trainer(
            num_generations=count,
            scale_rewards=scale_rewards,
            multi_objective_aggregation="sum_then_normalize",
            reward_weights=torch.ones(1),
            reward_funcs=[None],
            reward_func_names=["reward"],
            environment_factories=None,
            environments=None,
            tools=[],
            pad_to_multiple_of=None,
            mask_truncated_completions=False,
            beta=0.0,
            num_iterations=1,
            log_multimodal=False,
            _tokenizer=SimpleNamespace(pad_token_id=0),
            _is_vlm=False,
            _logs=defaultdict(list, rewards=defaultdict(list)),
            _pending_extra_logs={},
            _pending_metrics={},
            _generate=lambda prompts, c=completions: ([[1]] * len(c), c, None, [""] * len(c), None, {}, None, None),
            _calculate_rewards=lambda *_, own=batch.rewards[rows]: own[:, None],
        )
        found[rows] = trainer._generate_and_score_completions([{"prompt": ""}] * count)["advantages"]
    return found


def trl_overlong_rewards(lengths: Tensor, longest: int, buffer: int) -> Tensor:
    """[rows] of ``get_soft_overlong_punishment``."""
    punish = import_module("trl.rewards").get_soft_overlong_punishment(longest, buffer)
    return torch.tensor(punish([[1] * length for length in lengths.tolist()]), dtype=torch.float64)


def trl_loss(
    loss_type: str,
    level: str,
    batch: TokenBatch,
    *,
    low: float = 0.2,
    high: float = 0.28,
    delta: float | None = None,
    beta: float = 0.0,
    entropy: float = 0.0,
) -> Tensor:
    """``GRPOTrainer._compute_loss`` of the batch."""
    mask = batch.mask
    trainer = _bare_trainer(
        loss_type=loss_type,
        importance_sampling_level=level,
        epsilon_low=low,
        epsilon_high=high,
        beta=beta,
        entropy_coef=entropy,
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=entropy > 0,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        aux_loss_enabled=False,
        max_completion_length=mask.shape[1],
        current_gradient_accumulation_steps=1,
        _get_per_token_logps_and_entropies=lambda *_, **__: (batch.pad(batch.new), batch.pad(batch.entropy), None),
    )
    vars(trainer.args).update(
        delta=delta,
        use_bias_correction_kl=False,
        # Given as floats they would be taken for fp32.
        sapo_temperature_pos=torch.tensor(1.0, dtype=torch.float64),
        sapo_temperature_neg=torch.tensor(1.05, dtype=torch.float64),
    )
    prompt = mask.new_ones(len(mask), 1)
    loss: Tensor = trainer._compute_loss(
        None,
        {
            "prompt_ids": prompt,
            "prompt_mask": prompt,
            "completion_ids": mask,
            "completion_mask": mask,
            "advantages": batch.advantages,
            "old_per_token_logps": batch.pad(batch.old),
            "ref_per_token_logps": batch.pad(batch.reference),
            "num_items_in_batch": mask.sum(),
        },
    )
    return loss


def _bare_trainer(**attributes: Any) -> Any:
    """A ``GRPOTrainer`` of one process that was never constructed and has what its methods read."""
    trainer = object.__new__(import_module("trl").GRPOTrainer)
    vars(trainer).update(
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        accelerator=SimpleNamespace(
            device=torch.device("cpu"),
            num_processes=1,
            process_index=0,
            sync_gradients=True,
            gather=lambda values: values,
            reduce=lambda values, reduction: values,
        ),
        args=SimpleNamespace(
            per_device_train_batch_size=1,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        ),
        _metrics={"train": defaultdict(list)},
        **attributes,
    )
    return trainer
