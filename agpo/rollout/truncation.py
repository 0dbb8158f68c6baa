"""Top-k, top-p and min-p: the least likely tokens are taken away, and what is left is scaled up to one.

In the order of vLLM, each on what the one before has left: min-p (arXiv 2407.01082), top-k, top-p (arXiv 1904.09751).
Tokens of equal probability stand in the order of their ids, so that what is kept never depends on how a sort is done.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def truncate_logits(logits: Tensor, *, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0) -> Tensor:
    """Logits [rows, vocabulary] with −∞ for the tokens that may not be drawn; the most likely one always may.

    ``min_p``: least share of the most likely token's probability; 0: off. ``top_k``: number of tokens; 0: off.
    ``top_p``: the most likely tokens up to the one with which they reach this probability; 1: off.
    """
    if top_p == 1 and top_k == 0 and min_p == 0:
        return logits
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    kept = torch.ones_like(ordered, dtype=torch.bool)
    if min_p > 0:
        kept &= ordered >= ordered[:, :1] + math.log(min_p)
    if top_k > 0:
        kept[:, top_k:] = False
    if top_p < 1:
        # In fp64, so that the tail of a large vocabulary keeps its probability.
        chances = ordered.double().masked_fill(~kept, -math.inf).softmax(dim=-1)
        kept &= chances.cumsum(dim=-1) - chances < top_p
    return logits.masked_fill(~kept.scatter(1, ids, kept), -math.inf)
