"""Advantages of TRL and verl from the same rewards."""

from __future__ import annotations

import pytest
import torch

from tests.parity.batch import draw_batch
from tests.parity.golden import SEEDS
from tests.parity.mappings import ADVANTAGES, TOLERANCE

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ADVANTAGES)
def test_the_peer_gives_the_same(name: str, seed: int) -> None:
    batch = draw_batch(seed)
    mapping = ADVANTAGES[name]
    torch.testing.assert_close(mapping.ours(batch), mapping.peer(batch), atol=TOLERANCE, rtol=0)
