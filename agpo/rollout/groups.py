"""Which rows continue which prompt, so that a prompt's rows can be computed together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """A grid of prompts × the rows of the largest group; smaller groups leave places empty."""

    prompts: int
    rows: Tensor  # [prompts × largest], the row at each place; at an empty one any
    places: Tensor  # [rows], the place of each

    def gather(self, rows: Tensor) -> Tensor:
        """[rows, heads, each, width] → [prompts, heads, largest × each, width]."""
        _, heads, each, width = rows.shape
        grid = rows.index_select(0, self.rows).view(self.prompts, -1, heads, each, width)
        return grid.transpose(1, 2).reshape(self.prompts, heads, -1, width)

    def scatter(self, grid: Tensor, each: int) -> Tensor:
        """The way back from [prompts, heads, largest × each, width]."""
        _, heads, _, width = grid.shape
        rows = grid.view(self.prompts, heads, -1, each, width).transpose(1, 2).reshape(-1, heads, each, width)
        return rows.index_select(0, self.places)


def group_rows(prompt: NDArray[np.int64], prompts: int, device: torch.device) -> Groups:
    """The grid of rows whose prompts are ``prompt`` [rows], numbers below ``prompts``."""
    order = np.argsort(prompt, kind="stable")
    counts = np.bincount(prompt, minlength=prompts)
    rank = np.arange(len(prompt)) - np.repeat(counts.cumsum() - counts, counts)
    largest = counts.max()
    places = np.empty_like(prompt)
    places[order] = prompt[order] * largest + rank
    rows = np.zeros(prompts * largest, np.int64)
    rows[places] = np.arange(len(prompt))
    return Groups(prompts, torch.from_numpy(rows).to(device), torch.from_numpy(places).to(device))
