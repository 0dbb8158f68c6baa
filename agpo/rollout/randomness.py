"""Counter-based random numbers: a sample's depend on (seed, step, problem, sample, position) and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) of counters [..., 4]."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    with np.errstate(over="ignore"):
        for _ in range(10):
            p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
            c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


class Uniforms:
    """The uniform numbers in [0, 1) of some samples, one per response position, made a block of positions at a time."""

    _BLOCK = 32

    def __init__(self, seed: int, step: int, problem_ids: Sequence[str], samples: Sequence[int]) -> None:
        self._key = _words(f"{seed}/{step}")
        problems = {name: _words(name) for name in set(problem_ids)}
        self._row = np.array([[sample, *problems[name]] for name, sample in zip(problem_ids, samples, strict=True)])
        self._start = -1
        self._numbers: NDArray[np.float64] = np.empty((len(self._row), 0))

    def at(self, position: int) -> NDArray[np.float64]:
        """One number a sample, [samples], with 53 random bits."""
        start = position - position % self._BLOCK
        if start != self._start:
            counter = np.empty((len(self._row), self._BLOCK // 2, 4), np.uint32)
            counter[..., 0] = np.arange(start // 2, (start + self._BLOCK) // 2)
            counter[..., 1:] = self._row[:, None, :]
            words = philox(counter, self._key).astype(np.uint64)
            pairs = words.reshape(len(self._row), self._BLOCK, 2)
            bits = (pairs[..., 0] << _SHIFT | pairs[..., 1]) >> np.uint64(11)
            self._numbers = bits.astype(np.float64) * 2.0**-53
            self._start = start
        return self._numbers[:, position - start]


def _words(text: str) -> tuple[int, int]:
    found = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(found[:4], "little"), int.from_bytes(found[4:8], "little")
