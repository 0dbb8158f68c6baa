"""What two ranks and one are compared by: cases that a process runs as one of several ranks, or alone.

python -m tests.agpo.learner.rank_cases FOLDER RANK       writes FOLDER/RANK.json and FOLDER/RANK.safetensors
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from agpo.learner import buckets
from agpo.learner.batch import Batch
from agpo.learner.ranks import RankLost, Ranks, join_ranks
from agpo.learner.update import Learner
from agpo.objectives.losses import Correction, SequenceMean
from agpo.objectives.losses.gspo import Gspo
from agpo.settings import GuardSettings, LearnerSettings, LossSettings
from tests.agpo.learner.models import tiny_model
from tests.agpo.learner.test_update import FREE, PLAIN, TEMPERATURE, WITH_ALL, make

COUNT = 2
SEVERAL = FREE.model_copy(update={"mini_batches": 2, "epochs": 2})
GUARDED = GuardSettings(
    mismatch=1e9, gradient_norm=1e9, step=1e9, kl=1e9, moved=1, entropy_change=1e9, entropy_growth=1e9
)
GSPO = LossSettings(policy=Gspo(), normalisation=SequenceMean(), kl=0.1, correction=Correction(level="sequence"))
SHORT = 1.0  # seconds that a rank waits for one that hangs

Result = tuple[dict[str, Any], dict[str, Tensor]]


def train(ranks: Ranks, loss: LossSettings, chosen: LearnerSettings, batches: list[Batch], trained: str = "") -> Result:
    """Outcomes of some updates; gradients of the last one, weights and moments of what has ``trained`` in its name."""
    learner = _learner(ranks, loss, chosen, trained=trained)
    outcomes = [learner.update(batch, step) for step, batch in enumerate(batches)]
    tensors = {}
    for name, parameter in learner.trained.items():
        tensors[f"{name}/gradient"], tensors[f"{name}/weight"] = parameter.grad, parameter.detach()
        tensors |= {f"{name}/{kind}": value for kind, value in learner.optimizer.state.get(parameter, {}).items()}
    return {
        "refused": [outcome.refused for outcome in outcomes],
        "skipped": [outcome.skipped for outcome in outcomes],
        "metrics": [outcome.metrics for outcome in outcomes],
    }, tensors


def _learner(
    ranks: Ranks, loss: LossSettings = PLAIN, chosen: LearnerSettings = FREE, seed: int = 0, trained: str = ""
) -> Learner:
    model, base = tiny_model("llama", seed=seed), tiny_model("llama", seed=1).requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained in name)
    return Learner(model, base, loss, chosen, TEMPERATURE, 0, ranks)


def _guarded(chosen: LearnerSettings, **bounds: float) -> LearnerSettings:
    return chosen.model_copy(update={"guards": GUARDED.model_copy(update=bounds)})


def _poison(row: int, value: float = torch.nan) -> Batch:
    """Row 0 and row 1 are read by different ranks."""
    batch = make()
    advantages = batch.advantages.clone()
    advantages[row] = value
    return replace(batch, advantages=advantages)


def _buckets(ranks: Ranks) -> Result:
    before, buckets._ELEMENTS = buckets._ELEMENTS, 500
    try:
        return train(ranks, WITH_ALL, FREE, BATCHES)
    finally:
        buckets._ELEMENTS = before


BATCHES = [make(seed=seed) for seed in range(3)]
ONE_ROW = make(["correct", "unverifiable"], ["a", "a"])
LONE = replace(ONE_ROW, advantages=torch.ones(1, dtype=torch.float64))
NONE = make(["unverifiable"] * 2, ["a", "a"])

CASES: dict[str, Callable[[Ranks], Result]] = {
    "one optimiser step a batch": lambda ranks: train(ranks, PLAIN, FREE, BATCHES),
    "agpo, KL and entropy": lambda ranks: train(ranks, WITH_ALL, FREE, BATCHES),
    "mini-batches and epochs": lambda ranks: train(ranks, WITH_ALL, SEVERAL, BATCHES),
    "gspo": lambda ranks: train(ranks, GSPO, SEVERAL, BATCHES),
    "small micro-batches": lambda ranks: train(
        ranks, WITH_ALL, SEVERAL.model_copy(update={"micro_tokens": 9}), BATCHES
    ),
    "small buckets": _buckets,
    "a part of the weights": lambda ranks: train(ranks, WITH_ALL, _guarded(SEVERAL), BATCHES, trained="self_attn"),
    "guards": lambda ranks: train(ranks, WITH_ALL, _guarded(FREE), BATCHES),
    "guards, several steps": lambda ranks: train(ranks, PLAIN, _guarded(SEVERAL), BATCHES),
    "a rank without a row": lambda ranks: train(ranks, WITH_ALL, _guarded(SEVERAL), [LONE, make(), LONE]),
    "no row": lambda ranks: train(ranks, PLAIN, FREE, [make(), NONE]),
    "loss of the first row": lambda ranks: train(ranks, PLAIN, FREE, [make(), _poison(0)]),
    "loss of the second row": lambda ranks: train(ranks, WITH_ALL, SEVERAL, [make(), _poison(1)]),
    "gradient": lambda ranks: train(ranks, PLAIN, FREE, [make(), _poison(1, 1e300)]),
    "bound of mismatch": lambda ranks: train(ranks, PLAIN, _guarded(SEVERAL, mismatch=0.1), [make()]),
    "bound of KL": lambda ranks: train(ranks, PLAIN, _guarded(SEVERAL, kl=1e-9), [make()]),
    "bound of entropy": lambda ranks: train(ranks, WITH_ALL, _guarded(FREE, entropy_change=1e-9), [make()]),
}


def find_faults(ranks: Ranks) -> dict[str, str]:
    """The error of each fault, as rank 0 or 1 sees it. The last one ends rank 1."""
    found: dict[str, str] = {}
    with _error(found, "weights"):
        _learner(ranks, seed=ranks.rank).update(make(), 0)
    with _error(found, "batch"):
        _learner(ranks).update(make(seed=ranks.rank), 0)
    with _error(found, "settings"):
        _learner(ranks, chosen=FREE if ranks.rank else SEVERAL).update(make(), 0)
    impatient = Ranks(dist.new_group(timeout=timedelta(seconds=SHORT)))
    if ranks.rank == 0:
        with _error(found, "hang"):
            _learner(impatient).update(make(), 0)
    ranks.gather("rank 1 waited here")
    learner = _learner(ranks)
    if ranks.rank == 1:
        learner.optimizer.register_step_post_hook(lambda *_: os._exit(7))
    with _error(found, "death"):
        for step in range(2):
            learner.update(make(), step)
    return found


@contextmanager
def _error(found: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except (RankLost, ValueError) as error:
        found[name] = f"{type(error).__name__}: {error}"


def main(folder: Path, rank: int) -> None:
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    with join_ranks(timeout=120, rendezvous=f"file://{folder}/rendezvous?rank={rank}&world_size={COUNT}") as ranks:
        facts: dict[str, Any] = {}
        tensors: dict[str, Tensor] = {}
        for name, case in CASES.items():
            facts[name], found = case(ranks)
            tensors |= {f"{name}/{part}": tensor.contiguous() for part, tensor in found.items()}
        save_file(tensors, folder / f"{rank}.safetensors")
        (folder / f"{rank}.json").write_text(json.dumps(facts))
        (folder / f"{rank}.faults.json").write_text(json.dumps(find_faults(ranks)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
