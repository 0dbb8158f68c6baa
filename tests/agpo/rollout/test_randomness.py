from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from agpo.rollout.randomness import Uniforms, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter: str, key: str, expected: str) -> None:
    words = _read_words(counter)
    counters = np.array([words, [1, 2, 3, 4]], np.uint32)
    first, second = _read_words(key)
    assert philox(counters, (first, second))[0].tolist() == _read_words(expected)


def _read_words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


PROBLEMS = ["a", "a", "b", "c", "c", "c"]
SAMPLES = [0, 1, 0, 0, 1, 7]


def test_numbers_do_not_depend_on_what_else_is_in_the_batch() -> None:
    together = Uniforms(3, 5, PROBLEMS, SAMPLES)
    order = [4, 0, 5]
    apart = Uniforms(3, 5, [PROBLEMS[row] for row in order], [SAMPLES[row] for row in order])
    for position in (0, 1, 31, 32, 33, 100, 7):
        assert together.at(position)[order].tolist() == apart.at(position).tolist()


@pytest.mark.parametrize(
    "other",
    [
        Uniforms(4, 5, PROBLEMS, SAMPLES),
        Uniforms(3, 6, PROBLEMS, SAMPLES),
        Uniforms(3, -1, PROBLEMS, SAMPLES),
        Uniforms(3, 5, [name.upper() for name in PROBLEMS], SAMPLES),
        Uniforms(3, 5, PROBLEMS, [sample + 8 for sample in SAMPLES]),
    ],
    ids=["seed", "step", "negative step", "problem", "sample"],
)
def test_every_coordinate_changes_every_number(other: Uniforms) -> None:
    own = Uniforms(3, 5, PROBLEMS, SAMPLES)
    for position in (0, 40):
        assert (own.at(position) != other.at(position)).all()


def test_numbers_of_a_seed_are_fixed_for_good() -> None:
    """Journals and evaluations of an earlier installation are continued with the same numbers."""
    numbers = Uniforms(7, 3, ["countdown-1-2-3-4-10"], [2])
    assert [float(numbers.at(position)[0]) for position in (0, 1, 32)] == [
        0.40070530275824645,
        0.7322222235493149,
        0.7589096239584255,
    ]


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """[samples, positions] of 32 problems with 64 samples each."""
    uniforms = Uniforms(
        0, 0, [f"problem {row // 64}" for row in range(2048)], [sample for _ in range(32) for sample in range(64)]
    )
    return np.stack([uniforms.at(position) for position in range(64)], axis=1)


def test_numbers_lie_in_the_half_open_unit_interval_with_53_bits(table: np.ndarray) -> None:
    scaled = table * 2.0**53
    assert table.min() >= 0 and table.max() < 1
    assert (scaled == np.floor(scaled)).all()
    assert (scaled % 2 == 1).mean() == pytest.approx(0.5, abs=0.01)  # the lowest bit is in use


def test_numbers_are_uniform(table: np.ndarray) -> None:
    counts = np.histogram(table, bins=256, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    for values in (table[0], table[:, 0], table[:, 33]):
        assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_neighbours_are_independent(table: np.ndarray) -> None:
    sampling_error = 1 / np.sqrt(table.size)
    for shifted in (table[:, 1:], table[1:], table[64:]):  # next position, next sample, next problem
        own = table[: shifted.shape[0], : shifted.shape[1]]
        assert abs(np.corrcoef(own.ravel(), shifted.ravel())[0, 1]) < 4 * sampling_error
