"""Rows of tokens one after another, without padding: what a policy reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class PackedRows:
    """Rows of at least one token each, and which of their tokens are asked for."""

    ids: Tensor  # [tokens]
    lengths: Tensor  # [rows], on the CPU
    chosen: Tensor  # [tokens] bool; never the first of a row

    @property
    def targets(self) -> Tensor:
        """[number chosen]"""
        return self.ids[self.chosen]

    def before(self) -> PackedRows:
        """The rows without their last token; ``chosen`` are the tokens before those that are asked for."""
        kept = torch.ones(len(self.ids), dtype=torch.bool)
        kept[self.lengths.cumsum(0) - 1] = False
        kept = kept.to(self.ids.device)
        lengths = self.lengths - 1
        return PackedRows(self.ids[kept], lengths[lengths > 0], self.chosen.roll(-1)[kept])

    def pad(self) -> tuple[Tensor, Tensor]:
        """``ids`` and ``chosen`` as [rows, longest], padded on the right: a causal model does not see it."""
        lengths = self.lengths.tolist()
        ids, chosen = (
            pad_sequence(part.split(lengths), batch_first=True)  # type: ignore[no-untyped-call]
            for part in (self.ids, self.chosen)
        )
        return ids, chosen


def pack_padded(ids: Tensor, chosen: Tensor) -> PackedRows:
    """Rows [rows, length] that end at their last chosen token. The first column of ``chosen`` must be False."""
    places = torch.arange(ids.shape[1], device=ids.device)
    lengths = (chosen * places).amax(1) + 1
    within = places < lengths[:, None]
    return PackedRows(ids[within], lengths.cpu(), chosen[within])
