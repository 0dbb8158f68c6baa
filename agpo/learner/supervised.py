"""Supervised training on prompt–response pairs: next-token loss on the response, resumable."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agpo.artifacts import Files
from agpo.learner.optimizer import load_optimizer, save_optimizer
from agpo.learner.policy import load_policy, save_policy
from agpo.progress import progress
from agpo.settings import Supervised

_CHECKPOINT_EVERY = 500  # steps


def train_supervised(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    responses: list[list[int]],
    settings: Supervised,
    seed: int,
    partial: Files,
) -> dict[str, float]:
    """Train ``model`` in place; the loss is the mean over the batch's response tokens. Returns final metrics.

    AdamW (betas .9/.95, decay .01), linear warm-up, constant rate, linear decay to 5 % over the last 30 % of the steps.
    Row order is a seeded permutation per epoch. Checkpoints go to ``partial``; a killed training continues from the
    last one and ends in the same bytes.
    """
    ids, lengths, starts = _pad(prompts, responses)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    first, losses = _restore(model, optimizer, partial)
    model.train()
    with progress("warm start", settings.steps, "steps", first) as advance:
        for step in range(first, settings.steps):
            rows = _draw_rows(len(ids), settings.batch, step, seed)
            longest = int(lengths[rows].max())
            batch = ids[rows, :longest].to(model.device)
            loss = _response_loss(model, batch, starts[rows].to(model.device), lengths[rows].to(model.device))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"warm start: loss is {float(loss)} at step {step}; lower base.training.rate")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * _schedule(step, settings)
            optimizer.step()
            losses.append(loss.item())
            advance(1)
            if (step + 1) % _CHECKPOINT_EVERY == 0 and step + 1 < settings.steps:
                _checkpoint(model, tokenizer, optimizer, step + 1, losses, partial)
    model.eval()
    tail = losses[-100:]
    return {"warm_start/loss": float(np.mean(tail)) if tail else math.nan, "warm_start/steps": float(settings.steps)}


def _schedule(step: int, settings: Supervised) -> float:
    warm = min(1.0, (step + 1) / max(1, settings.warm_up))
    return warm * min(1.0, max(0.05, (settings.steps - step) / (0.3 * settings.steps)))


def _draw_rows(count: int, batch: int, step: int, seed: int) -> Tensor:
    """The step's rows: slice ``step`` of the endless sequence of seeded permutations."""
    rows: list[np.ndarray] = []
    place = step * batch
    while batch > 0:
        epoch, start = divmod(place, count)
        part = _permutation(count, epoch, seed)[start : start + batch]
        rows.append(part)
        place, batch = place + len(part), batch - len(part)
    return torch.from_numpy(np.concatenate(rows))


_KEPT: dict[tuple[int, int, int], np.ndarray] = {}


def _permutation(count: int, epoch: int, seed: int) -> np.ndarray:
    key = (count, epoch, seed)
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(count)
    return _KEPT[key]


def _pad(prompts: list[list[int]], responses: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids [rows, longest], sequence lengths [rows], prompt lengths [rows]."""
    starts = np.array([len(prompt) for prompt in prompts])
    lengths = starts + np.array([len(response) for response in responses])
    ids = np.zeros((len(prompts), int(lengths.max())), np.int64)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[row, : starts[row]] = prompt
        ids[row, starts[row] : lengths[row]] = response
    return torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(starts)


def _response_loss(model: Any, ids: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    places = torch.arange(1, ids.shape[1], device=ids.device)
    is_response = (places >= starts[:, None]) & (places < lengths[:, None])
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits[is_response], ids[:, 1:][is_response])


def _checkpoint(
    model: Any, tokenizer: Any, optimizer: torch.optim.Optimizer, step: int, losses: list[float], partial: Files
) -> None:
    with tempfile.TemporaryDirectory(prefix="agpo-checkpoint-") as name:
        folder = Path(name)
        save_policy(model, tokenizer, folder)
        save_optimizer(model, optimizer, folder / "optimizer.safetensors")
        partial.put(folder, f"step-{step:08d}")
    state = {"step": step, "losses": losses[-100:]}
    partial.write("checkpoint.json", json.dumps(state).encode())  # the pointer, written last


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
