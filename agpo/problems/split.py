"""Which rows of a table are trained on and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

Split = Literal["train", "selection", "confirmation"]


def assign_splits(ids: Sequence[str], selection: int, confirmation: int) -> list[Split | None]:
    """The split of each id; None for an id that is not used.

    A split depends on an id's hash, never on its place: the first tenth of all hashes is set aside for confirmation,
    the second for selection, the rest is train. Of the ids in a tenth, those with the smallest hashes are the split;
    the others stay unused. So rows that are added, removed or reordered never move a row from one split to another,
    and a row that was held out is never trained on later. A split of size 0 sets nothing aside.

    Raises ValueError if a tenth holds too few ids.
    """
    hashes = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) for name in ids]
    splits: list[Split | None] = ["train"] * len(ids)
    sizes: tuple[tuple[Split, int], ...] = (("confirmation", confirmation), ("selection", selection))
    for tenth, (split, size) in enumerate(sizes):
        if size:
            aside = sorted((value, at) for at, value in enumerate(hashes) if value * 10 >> 64 == tenth)
            if len(aside) < size:
                raise ValueError(
                    f"problems.{split} = {size} is more than the {len(aside)} of {len(ids)} rows that are set aside "
                    f"for it (about a tenth); lower it, or give more rows"
                )
            for rank, (_, at) in enumerate(aside):
                splits[at] = split if rank < size else None
    return splits
