"""Data-parallel ranks: processes that take the same optimiser steps, each with the gradients of its share of rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from agpo.learner.batch import Batch
from agpo.learner.buckets import cut_buckets


class RankLost(RuntimeError):
    """Another rank ended or did not answer in time; the message says what this one waited for."""


class Ranks:
    """This process among those that train one policy; alone where there is no process group.

    Every rank has the same weights and is given the same batches. What a step needs of all of them is summed or
    gathered in the order of the ranks, so that all of them take the same decisions.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.count = 1 if group is None else dist.get_world_size(group)

    def share(self, batch: Batch, rows: np.ndarray) -> np.ndarray:
        """This rank's part of the row numbers ``rows``, in their order; all parts have about as many tokens.

        The longest row goes to the rank with the fewest tokens, then the next one: within 4/3 of the best split
        (Graham, 1969). With fewer rows than ranks some have none.
        """
        if self.count == 1:
            return rows
        lengths = np.array([len(batch.prompts[row]) + len(batch.responses[row]) for row in rows], dtype=np.int64)
        loads, owners = [0] * self.count, np.zeros(len(rows), dtype=np.int64)
        for place in np.argsort(-lengths, kind="stable"):
            owners[place] = loads.index(min(loads))
            loads[owners[place]] += int(lengths[place])
        own: np.ndarray = rows[owners == self.rank]
        return own

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Make every gradient the sum of those of all ranks. Each parameter has one, on every rank."""
        if self.count == 1:
            return
        for bucket in cut_buckets(part.grad for part in parameters if part.grad is not None):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self.sum_tensor(flat)
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, part in zip(bucket, flat.split(sizes), strict=True):  # type: ignore[no-untyped-call]
                gradient.copy_(part.view_as(gradient))

    def sum_tensor(self, tensor: Tensor) -> None:
        """Sum up in place."""
        with self._waiting("summed tensors up"):
            dist.all_reduce(tensor, group=self.group)

    def complete(
        self, found: Mapping[int, tuple[Tensor, Tensor]], lengths: Mapping[int, int], like: Tensor
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Log-probs and entropies ([tokens] each) of all rows that any rank has found, by row number.

        ``lengths``: the tokens of every row, on each rank the same; ``like`` has the dtype and device. A row is found
        on one rank only, so that the sum with the others' zeros is exact.
        """
        if self.count == 1:
            return dict(found)
        places = torch.zeros(2, sum(lengths.values()), dtype=like.dtype, device=like.device)
        parts = dict(zip(lengths, places.split(list(lengths.values()), dim=1), strict=True))  # type: ignore[no-untyped-call]
        for row, values in found.items():
            parts[row].copy_(torch.stack(values))
        self.sum_tensor(places)
        return {row: (part[0], part[1]) for row, part in parts.items()}

    def agree(self, reason: str | None) -> str | None:
        """The reason of the first rank that has one."""
        return next(filter(None, self.gather(reason or "")), None)

    def sum_values(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums by name; a rank may lack a name."""
        totals: dict[str, float] = {}
        for text in self.gather(json.dumps(values)):
            for name, value in json.loads(text).items():
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def check_same(self, facts: Mapping[str, str]) -> None:
        """ValueError where a rank's facts are not those of rank 0, with its number and their names."""
        first, *others = map(json.loads, self.gather(json.dumps(facts)))
        for rank, other in enumerate(others, start=1):
            names = sorted(name for name in first | other if first.get(name) != other.get(name))
            if names:
                raise ValueError(
                    f"rank {rank} of {self.count} differs from rank 0 in {', '.join(names)}; "
                    "all ranks need the same weights, optimiser state, settings and batches"
                )

    def gather(self, text: str) -> list[str]:
        """What every rank says, in their order."""
        if self.count == 1:
            return [text]
        data = text.encode()
        sizes = self._gather(torch.tensor([len(data)]))
        longest = int(torch.stack(sizes).max())
        padded = torch.frombuffer(bytearray(data.ljust(longest + 1)), dtype=torch.uint8)
        return [
            part[: int(size)].numpy().tobytes().decode() for part, size in zip(self._gather(padded), sizes, strict=True)
        ]

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        with self._waiting("exchanged decisions"):
            dist.all_gather(found, tensor, group=self.group)
        return found

    @contextmanager
    def _waiting(self, doing: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise RankLost(
                f"rank {self.rank} of {self.count} lost another one while they {doing}: it ended or did not answer in "
                f"time, see its log; start all ranks again ({error})"
            ) from error


@contextmanager
def join_ranks(timeout: float = 600, rendezvous: str = "env://") -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started: gloo on CPU, and nccl between GPUs, one each.

        torchrun --standalone --nproc-per-node 8 train.py

        with join_ranks() as ranks:                          # train.py
            learner = Learner(model, reference, loss, settings, temperature, seed, ranks=ranks)
            learner.update(batch, step)                      # the whole batch, on every rank

    Rank 0's weights are saved; the others' are the same. A rank that waits longer than ``timeout`` seconds for another
    ends: with `RankLost` on CPU; NCCL's own watchdog ends the process on a GPU. ``rendezvous``: where the ranks find
    each other, as ``init_method`` of torch.distributed.
    """
    with_gpu = torch.cuda.is_available()
    if with_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if with_gpu else "gloo", init_method=rendezvous, timeout=timedelta(seconds=timeout)
    )
    try:
        yield Ranks(dist.group.WORLD)
    finally:
        dist.destroy_process_group()


def digest_tensors(tensors: Iterable[Tensor]) -> str:
    """Sha256 of their bytes, in order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
