"""Advantages, losses and gradients are those that TRL and verl give: `tests.parity.golden` asked them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agpo.objectives.losses import TokenLoss
from tests.parity.golden import FILE, read_golden, write_golden
from tests.parity.mappings import ADVANTAGES, DUAL_2, DUAL_3, GSPO, LOSSES, TOLERANCE, value_and_gradient

GOLDEN = read_golden()


@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_are_those_of_the_peer(name: str) -> None:
    found = ADVANTAGES[name].ours(GOLDEN.batch)
    torch.testing.assert_close(found, GOLDEN.advantages[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_peer(name: str) -> None:
    found = value_and_gradient(LOSSES[name].ours, GOLDEN.batch)
    torch.testing.assert_close(found, GOLDEN.losses[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("policy", [DUAL_2, DUAL_3, GSPO], ids=["dual clip 2", "dual clip 3", "gspo"])
def test_every_bound_acts_on_the_batch(policy: TokenLoss) -> None:
    batch = GOLDEN.batch
    held = policy.clipped(batch.new.detach(), batch.old, batch.advantages[batch.rows], batch.rows)
    assert {bound for bound, tokens in held.items() if tokens.any()} == set(held)


def test_groups_are_mixed_and_of_one_kind() -> None:
    batch = GOLDEN.batch
    kinds = {len(set(batch.rewards[batch.groups == group].tolist())) for group in batch.groups.tolist()}
    assert kinds == {1, 2}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "golden.json"
    write_golden(GOLDEN, file)
    assert file.read_bytes() == FILE.read_bytes()
