"""Losses and gradients of TRL and verl on the same batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.parity.batch import draw_batch
from tests.parity.golden import SEEDS
from tests.parity.mappings import LOSSES, TOLERANCE, value_and_gradient

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_the_same(name: str, seed: int) -> None:
    batch = draw_batch(seed)
    mapping = LOSSES[name]
    found, expected = (value_and_gradient(loss, batch) for loss in (mapping.ours, mapping.peer))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["verl vanilla", "verl vanilla, rows", "verl vanilla, constant"])
def test_a_row_that_verl_masks_as_a_whole_counts_like_one_that_is_left_out_here(name: str) -> None:
    batch = draw_batch(0)
    with_masked = replace(
        batch,
        lengths=torch.cat([batch.lengths, torch.tensor([0])]),
        advantages=torch.cat([batch.advantages, torch.ones(1).double()]),
    )
    mapping = LOSSES[name]
    torch.testing.assert_close(mapping.ours(batch), mapping.peer(with_masked), atol=TOLERANCE, rtol=0)
