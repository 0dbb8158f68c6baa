"""Supervised training on prompt–response pairs: next-token loss on the response, resumable."""

from __future__ import annotations

import json
import math
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agpo.artifacts import Files
from agpo.learner.optimizer import load_optimizer, save_optimizer
from agpo.learner.pairs import EncodedPairs
from agpo.learner.policy import LogprobReader, load_policy, save_policy
from agpo.progress import progress
from agpo.settings import Supervised

_CHECKPOINT_EVERY = 500  # steps


def train_supervised(
    model: Any,
    tokenizer: Any,
    pairs: EncodedPairs,
    settings: Supervised,
    seed: int,
    partial: Files,
    where: str = "base.training",
) -> dict[str, float]:
    """Train ``model`` in place; the loss is the mean over the batch's response tokens. Returns final metrics.

    AdamW (betas .9/.95, decay .01), linear warm-up, constant rate, linear decay to 5 % over the last 30 % of the steps;
    gradient norm clipped at 1; no dropout. Row order is a seeded permutation per epoch. Checkpoints go to ``partial``;
    a killed training continues from the last one and ends in the same bytes. FloatingPointError, which names the
    settings by ``where`` they are, when the loss is not finite.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    first, losses = _restore(model, optimizer, partial)
    reader = LogprobReader(model)
    with progress("supervised training", settings.steps, "steps", first) as advance:
        for step in range(first, settings.steps):
            ids, chosen = pairs.pad(_draw_rows(len(pairs), settings.batch, step, seed))
            logprobs, _ = reader.read(ids.to(model.device), chosen.to(model.device), temperature=1.0)
            loss = -logprobs.mean()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"supervised training: the loss is {losses[-1]} at step {step} "
                    f"with {where}.rate = {settings.rate}; lower it"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * _schedule(step, settings)
            optimizer.step()
            advance(1)
            if (step + 1) % _CHECKPOINT_EVERY == 0 and step + 1 < settings.steps:
                _checkpoint(model, tokenizer, optimizer, step + 1, losses, partial)
    tail = losses[-100:]
    return {"supervised/loss": float(np.mean(tail)) if tail else math.nan, "supervised/steps": float(settings.steps)}


def _schedule(step: int, settings: Supervised) -> float:
    warm = min(1.0, (step + 1) / max(1, settings.warm_up))
    return warm * min(1.0, max(0.05, (settings.steps - step) / (0.3 * settings.steps)))


def _draw_rows(count: int, batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """The step's rows: slice ``step`` of the endless sequence of seeded permutations."""
    rows: list[NDArray[np.int64]] = []
    place = step * batch
    while batch > 0:
        epoch, start = divmod(place, count)
        part = _permutation(count, epoch, seed)[start : start + batch]
        rows.append(part)
        place, batch = place + len(part), batch - len(part)
    return np.concatenate(rows)


@lru_cache(maxsize=1)
def _permutation(count: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(count)


def _checkpoint(
    model: Any, tokenizer: Any, optimizer: torch.optim.Optimizer, step: int, losses: list[float], partial: Files
) -> None:
    kept = f"step-{step:08d}"
    with tempfile.TemporaryDirectory(prefix="agpo-checkpoint-") as name:
        folder = Path(name)
        save_policy(model, tokenizer, folder)
        save_optimizer(model, optimizer, folder / "optimizer.safetensors")
        partial.put(folder, kept)
    state = {"step": step, "losses": losses[-100:]}
    partial.write("checkpoint.json", json.dumps(state).encode())  # the pointer, written last
    for other in partial.folders():
        if other.startswith("step-") and other != kept:
            partial.remove(other)


def _restore(model: Any, optimizer: torch.optim.Optimizer, partial: Files) -> tuple[int, list[float]]:
    if not partial.exists("checkpoint.json"):
        return 0, []
    state = json.loads(partial.read("checkpoint.json"))
    with tempfile.TemporaryDirectory(prefix="agpo-checkpoint-") as name:
        partial.get(f"step-{state['step']:08d}", Path(name))
        saved, _ = load_policy(Path(name), str(model.device))
        model.load_state_dict(saved.state_dict())
        load_optimizer(model, optimizer, Path(name) / "optimizer.safetensors")
    return int(state["step"]), list(state["losses"])
