"""Exact sampling with one cache row per distinct prefix.

Samples of a problem that have the same tokens so far share one row of the key-value cache; each sample draws its next
token from its row's distribution by inverse CDF with its own uniform number, and a row splits when its samples part.
The distribution is that of independent samples, the prompt is read once per problem, and the work is that of the
distinct prefixes only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agpo.rollout.decoder import Decoder
from agpo.rollout.randomness import Uniforms
from agpo.rollout.truncation import truncate_logits

_BLOCK = 1 << 24  # samples × vocabulary looked at in one go


@dataclass(frozen=True)
class Samples:
    """Sampled answers, one row each."""

    tokens: NDArray[np.int32]  # [samples, longest]; only the first ``lengths`` of a row count
    logprobs: NDArray[np.float32]  # [samples, longest], natural log, under the distribution that was sampled
    lengths: NDArray[np.int32]  # [samples], the stop token included
    truncated: NDArray[np.bool_]  # [samples], reached the limit without a stop token


def sample_answers(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    prompt_of: NDArray[np.int64],
    uniforms: Uniforms,
    *,
    tokens: int,
    temperature: float,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    stops: Collection[int],
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Draw one answer for every entry of ``prompt_of`` [samples], the index of its prompt.

    ``tokens``: most new tokens of an answer. ``top_p``, ``top_k``, ``min_p``: see `truncate_logits`.
    ``progress`` is called with the number of answers that ended.
    """
    count = len(prompt_of)
    drawn = np.zeros((count, tokens), np.int32)
    logprobs = np.zeros((count, tokens), np.float32)
    lengths = np.full(count, tokens, np.int32)
    truncated = np.ones(count, np.bool_)
    stop_ids = np.fromiter(stops, np.int64)

    logits = decoder.start(prompts, max(count, len(prompts)), tokens)
    live = np.arange(count)
    row = prompt_of
    for position in range(tokens):
        possible = truncate_logits(logits / temperature, top_p=top_p, top_k=top_k, min_p=min_p)
        logp = torch.log_softmax(possible, dim=-1)
        rows = torch.from_numpy(row).to(logits.device)
        token = _draw(logp, rows, torch.from_numpy(uniforms.at(position)[live]).to(logits.device))
        drawn[live, position] = token.cpu().numpy()
        logprobs[live, position] = logp[rows, token].cpu().numpy()

        ended = (drawn[live, position, None] == stop_ids).any(axis=1)
        lengths[live[ended]] = position + 1
        truncated[live[ended]] = False
        if progress is not None and ended.any():
            progress(int(ended.sum()))
        live = live[~ended]
        if not len(live) or position + 1 == tokens:
            break
        vocabulary = logits.shape[1]
        prefixes, row = np.unique(row[~ended] * vocabulary + drawn[live, position], return_inverse=True)
        logits = decoder.step(prefixes // vocabulary, torch.from_numpy(prefixes % vocabulary).to(logits.device))
    decoder.finish()
    if progress is not None and len(live):
        progress(len(live))
    return Samples(drawn, logprobs, lengths, truncated)


def _draw(logp: Tensor, rows: Tensor, uniform: Tensor) -> Tensor:
    """The token of each sample by inverse CDF: the first whose cumulative probability exceeds the uniform number.

    Sums are in fp64, so that the tail of a large vocabulary keeps its probability.
    """
    cumulative = logp.exp().cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not torch.isfinite(total).all():
        raise FloatingPointError("the policy's next-token probabilities are not numbers; its weights are damaged")
    block = max(1, _BLOCK // logp.shape[1])
    drawn = []
    for start in range(0, len(rows), block):
        row = rows[start : start + block]
        # At most 1 − 2⁻⁵³ of the total, hence below it after rounding too: an impossible last token is not drawn.
        point = uniform[start : start + block, None] * total[row]
        drawn.append(torch.searchsorted(cumulative[row], point, right=True)[:, 0])
    return torch.cat(drawn)
