"""Tensors in groups of bounded size: one call for many small ones, and no copy of the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

_ELEMENTS = 2**25  # 128 MiB in fp32; our choice


def cut_buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order; a larger one is alone."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(part.numel() for part in bucket) + tensor.numel() > _ELEMENTS:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
