"""Whether tensors fit where they are to be put."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def check_shapes(found: Mapping[str, Tensor], own: Mapping[str, Tensor], fault: str, place: str) -> None:
    """ValueError, which begins with ``fault``, unless both have tensors of the same names and shapes."""
    for name in sorted({*found, *own}):
        theirs, ours = (tuple(part[name].shape) if name in part else "missing" for part in (found, own))
        if theirs != ours:
            raise ValueError(f"{fault}: {name} is {theirs}, in the {place} {ours}")
