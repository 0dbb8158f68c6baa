"""Which rows continue which prompt, so that a prompt's rows can be computed together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """A grid of prompts × key heads × the rows of the largest group; smaller groups leave places empty."""

    prompts: int  # × key heads
    rows: Tensor  # [prompts × key heads × largest], the row and key head at each place; at an empty one any
    places: Tensor  # [rows × key heads], the place of each

    def gather(self, rows: Tensor) -> Tensor:
        """[rows × key heads, each, width] → [prompts × key heads, largest × each, width]."""
        return rows.index_select(0, self.rows).view(self.prompts, -1, rows.shape[-1])

    def scatter(self, grid: Tensor, each: int) -> Tensor:
        """The way back from [prompts × key heads, largest × each, width]."""
        return grid.view(-1, each, grid.shape[-1]).index_select(0, self.places)


def group_rows(prompt: NDArray[np.int64], prompts: int, heads: int, device: torch.device) -> Groups:
    """The grid of rows whose prompts are ``prompt`` [rows], numbers below ``prompts``, and of so many key heads."""
    order = np.argsort(prompt, kind="stable")
    counts = np.bincount(prompt, minlength=prompts)
    rank = np.arange(len(prompt)) - np.repeat(counts.cumsum() - counts, counts)
    largest = counts.max()
    places = np.empty((len(prompt), heads), np.int64)
    places[order] = (prompt[order, None] * heads + np.arange(heads)) * largest + rank[:, None]
    rows = np.zeros(prompts * heads * largest, np.int64)
    rows[places] = np.arange(len(prompt) * heads).reshape(-1, heads)
    return Groups(prompts * heads, *(torch.from_numpy(index.reshape(-1)).to(device) for index in (rows, places)))
