"""The rows of an optimiser step: rollouts with their verdicts, advantages, and their cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from agpo.learner.packed import PackedRows
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
    comparable: bool = True  # the sampler's log-probs are of the distribution that the learner reads

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
    comparable: bool = True,
) -> Batch:
    """Join rollouts and verdicts, leave out what may not teach, and give every row its advantage.

    ``step`` counts from 0; ValueError from an objective that depends on it where it is not given. Not ``comparable``
    are rollouts whose sampler left tokens out (top-p, top-k, min-p): the others' probabilities were scaled up.

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
        comparable=comparable,
    )


def split_mini_batches(batch: Batch, count: int, seed: Sequence[int]) -> list[np.ndarray]:
    """Row numbers of ``count`` mini-batches of whole groups, in an order that depends on ``seed`` only."""
    if count == 1:
        return [np.arange(len(batch))]
    groups = batch.groups.numpy()
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed)))).permutation(groups.max() + 1)
    parts = np.array_split(order, count)
    return [rows for part in parts if len(rows := np.flatnonzero(np.isin(groups, part)))]


def cut_micro_batches(batch: Batch, rows: np.ndarray, tokens: int, padded: bool = False) -> Iterator[np.ndarray]:
    """Row numbers in parts of at most ``tokens`` tokens (one row at least).

    ``padded``: by length, and each row counts as long as the longest of its part. Else by group, then by length: rows
    of a group have a prompt in common, which `LlamaBody` reads once a part, so a group that fits in one is not cut.
    """
    lengths = np.array([len(batch.prompts[row]) + len(batch.responses[row]) for row in rows])
    groups = batch.groups.numpy()[rows]
    order = np.argsort(lengths, kind="stable") if padded else np.lexsort((lengths, groups))
    ordered, lengths, groups = rows[order], lengths[order], groups[order]
    ends = lengths.cumsum()
    together = np.arange(len(ordered))  # the last of the rows that are to be in one part with each
    if not padded and len(ordered):
        _, first, counts = np.unique(groups, return_index=True, return_counts=True)
        last = first + counts - 1
        whole = ends[last] - ends[first] + lengths[first] <= tokens
        together[first[whole]] = last[whole]
    start = 0
    for end in range(1, len(ordered) + 1):
        if end < len(ordered):
            size = (end + 1 - start) * lengths[end] if padded else ends[together[end]] - ends[start] + lengths[start]
        if end == len(ordered) or size > tokens:
            yield ordered[start:end]
            start = end


def pack_rows(batch: Batch, rows: np.ndarray, device: str) -> PackedRows:
    """Prompts and responses; the response tokens are chosen."""
    prompts, responses = ([part[row] for row in rows] for part in (batch.prompts, batch.responses))
    sizes = torch.tensor([[len(prompt), len(response)] for prompt, response in zip(prompts, responses, strict=True)])
    ids = [token for parts in zip(prompts, responses, strict=True) for part in parts for token in part]
    chosen = torch.tensor([False, True]).repeat(len(rows)).repeat_interleave(sizes.flatten())
    return PackedRows(torch.tensor(ids).to(device), sizes.sum(1), chosen.to(device))
