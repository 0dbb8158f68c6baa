"""The rows of an optimiser step: rollouts with their verdicts, advantages, and their cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from agpo.objectives import Objective, StepContext


@dataclass(frozen=True)
class Batch:
    """Usable rollouts: verified, and not truncated where truncated ones are masked."""

    ids: list[str]  # of the rollouts
    prompts: list[list[int]]
    responses: list[list[int]]
    sampled_logprobs: list[list[float]]  # the sampler's
    groups: Tensor  # [rows], 0…P−1, one group a problem
    correct: Tensor  # [rows] bool
    advantages: Tensor  # [rows] fp64

    def __len__(self) -> int:
        return len(self.responses)

    @property
    def response_tokens(self) -> Tensor:
        """[rows]"""
        return torch.tensor([len(response) for response in self.responses])


def make_batch(
    rollouts: pl.DataFrame,
    verdicts: pl.DataFrame,
    objective: Objective,
    mask_truncated: bool,
    step: int | None = None,
) -> Batch:
    """Join rollouts and verdicts, leave out what may not teach, and give every row its advantage.

    ``step`` counts from 0; ValueError from an objective that depends on it where it is not given.

    Unverifiable rows (and masked truncated ones) leave the loss, the group statistics and the denominator alike.
    """
    rows = rollouts.join(verdicts.select("id", "verdict"), on="id", how="inner", maintain_order="left")
    if len(rows) != len(rollouts):
        raise ValueError(f"{len(rollouts) - len(rows)} of {len(rollouts)} rollouts have no verdict")
    rows = rows.filter(pl.col("verdict") != "unverifiable")
    if mask_truncated:
        rows = rows.filter(~pl.col("truncated"))
    problems = rows["problem_id"].to_list()
    number = {name: index for index, name in enumerate(dict.fromkeys(problems))}
    groups = torch.tensor([number[name] for name in problems], dtype=torch.long)
    correct = torch.tensor((rows["verdict"] == "correct").to_list(), dtype=torch.bool)
    rewards = correct.double() * 2 - 1
    responses = rows["response_ids"].to_list()
    context = StepContext(step, torch.tensor([len(response) for response in responses], dtype=torch.long))
    return Batch(
        ids=rows["id"].to_list(),
        prompts=rows["prompt_ids"].to_list(),
        responses=responses,
        sampled_logprobs=rows["logprobs"].to_list(),
        groups=groups,
        correct=correct,
        advantages=objective.advantages(rewards, groups, correct, context),
    )


def split_mini_batches(batch: Batch, count: int, seed: Sequence[int]) -> list[np.ndarray]:
    """Row numbers of ``count`` mini-batches of whole groups, in an order that depends on ``seed`` only."""
    if count == 1:
        return [np.arange(len(batch))]
    groups = batch.groups.numpy()
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed)))).permutation(groups.max() + 1)
    parts = np.array_split(order, count)
    return [rows for part in parts if len(rows := np.flatnonzero(np.isin(groups, part)))]


def cut_micro_batches(batch: Batch, rows: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Row numbers by length, in parts of at most ``tokens`` padded tokens (one row at least)."""
    lengths = np.array([len(batch.prompts[row]) + len(batch.responses[row]) for row in rows])
    ordered = rows[np.argsort(lengths, kind="stable")]
    lengths = np.sort(lengths, kind="stable")
    start = 0
    for end in range(1, len(ordered) + 1):
        if end == len(ordered) or (end + 1 - start) * lengths[end] > tokens:
            yield ordered[start:end]
            start = end


def pad_right(batch: Batch, rows: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Token ids [rows, longest] and which of them are response tokens, bool of the same shape."""
    sequences = [batch.prompts[row] + batch.responses[row] for row in rows]
    longest = max(map(len, sequences))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    chosen = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
        ids[index, : len(sequence)] = torch.tensor(sequence)
        chosen[index, len(batch.prompts[row]) : len(sequence)] = True
    return ids.to(device), chosen.to(device)
