"""A small batch in fp64 that TRL, verl and this library are given alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Bessel's correction n / (n − 1) is taken in fp32, by verl of 65 tokens and by TRL of the rows of a group: exact here.
LENGTHS = (12, 10, 8, 7, 6, 5, 5, 4, 3, 2, 2, 1)
GROUPS = (0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3)


@dataclass(frozen=True)
class TokenBatch:
    """Responses one after the other; `pad` lays them out as the peers need them."""

    lengths: Tensor  # [rows]
    groups: Tensor  # [rows]
    rewards: Tensor  # [rows] ±1
    advantages: Tensor  # [rows]
    new: Tensor  # [tokens] log-probs with gradient
    old: Tensor  # [tokens]
    reference: Tensor  # [tokens]

    @property
    def rows(self) -> Tensor:
        """[tokens] the row of each token."""
        return torch.arange(len(self.lengths)).repeat_interleave(self.lengths)

    @property
    def mask(self) -> Tensor:
        """[rows, longest] 1 for response tokens.

        Whole numbers, as in a run of verl: it adds 1e-8 to counts, which is lost in rounding unless they are fp64.
        """
        return (torch.arange(int(self.lengths.max())) < self.lengths[:, None]).long()

    @property
    def entropy(self) -> Tensor:
        """[tokens] a function of the log-probs that stands for the entropy, which depends on all logits."""
        return -self.new.exp() * self.new

    def pad(self, values: Tensor) -> Tensor:
        """[rows, longest] from [tokens], 0 on the right."""
        mask = self.mask.bool()
        return values.new_zeros(mask.shape).masked_scatter(mask, values)


def draw_batch(seed: int) -> TokenBatch:
    """Twelve rows in four groups, so far off policy that every bound of every loss acts on some token."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(LENGTHS), generator=generator)

    def normal(size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    tokens = sum(LENGTHS)
    old = -2 - normal(tokens).abs()
    new = old + 0.8 * normal(tokens)
    return TokenBatch(
        lengths=torch.tensor(LENGTHS)[order],
        groups=torch.tensor(GROUPS)[torch.randperm(len(GROUPS), generator=generator)],
        rewards=torch.randint(0, 2, (len(LENGTHS),), generator=generator).double() * 2 - 1,
        advantages=normal(len(LENGTHS)),
        new=new.clone().requires_grad_(),
        old=old,
        reference=new + 0.4 * normal(tokens),
    )
