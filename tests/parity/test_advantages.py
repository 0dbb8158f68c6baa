"""The advantages that verl computes from the same rewards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from agpo.objectives import AdvantageEstimator, Agpo, Grpo, StepContext
from agpo.objectives.dr_grpo import DrGrpo
from agpo.objectives.opo import Opo
from agpo.objectives.reinforce_plus_plus import ReinforcePlusPlus
from agpo.objectives.reinforce_plus_plus_baseline import ReinforcePlusPlusBaseline
from agpo.objectives.rloo import Rloo
from tests.parity.peers import draw_batch, verl_advantages

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("estimator", "name", "options", "tolerance"),
    [
        (Grpo(), "grpo", {}, 1e-12),
        (DrGrpo(), "grpo", {"norm_adv_by_std_in_grpo": False}, 1e-12),
        (Agpo(delta=0, negative=0, ddof=1), "grpo", {"epsilon": 0.0}, 1e-12),
        (Rloo(), "rloo", {}, 1e-12),
        (Opo(), "opo", {}, 1e-12),
        # verl adds 1e-8 to the number of tokens.
        (ReinforcePlusPlus(), "reinforce_plus_plus", {"config": SimpleNamespace(gamma=1.0)}, 1e-8),
        (ReinforcePlusPlusBaseline(), "reinforce_plus_plus_baseline", {}, 1e-8),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_verl_gives_the_same(
    estimator: AdvantageEstimator, name: str, options: dict[str, Any], tolerance: float, seed: int
) -> None:
    batch = draw_batch(seed)
    found = estimator.advantages(batch.rewards, batch.groups, batch.rewards > 0, StepContext(0, batch.lengths))
    expected = verl_advantages(name, batch, **options).nan_to_num()  # without ε, equal rewards are 0/0 there
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
