from __future__ import annotations

from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.countdown_game import CountdownGame, Step

GAME = CountdownGame(largest=40)
numbers = st.lists(st.integers(0, 40), min_size=2, max_size=4).map(lambda found: tuple(sorted(found)))


def compute(left: int, operator: str, right: int) -> int | None:
    if operator == "/":
        return left // right if right and left % right == 0 else None
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def count_paths(state: tuple[int, ...], largest: int) -> dict[int, int]:
    """All sequences of distinct steps, written out, as sets."""
    paths: dict[int, set[tuple[str, ...]]] = {}

    def walk(left: tuple[int, ...], path: tuple[str, ...]) -> None:
        if len(left) == 1:
            paths.setdefault(left[0], set()).add(path)
        for a, b in {pair for pair in permutations(left, 2)}:
            for operator in "+-*/":
                result = compute(a, operator, b)
                if result is not None and 0 <= result <= largest:
                    rest = list(left)
                    rest.remove(a)
                    rest.remove(b)
                    name = f"{max(a, b)}{operator}{min(a, b)}" if operator in "+*" else f"{a}{operator}{b}"
                    walk((*rest, result), (*path, name))

    walk(state, ())
    return {target: len(found) for target, found in paths.items()}


@given(state=numbers, seed=st.integers(0, 1000))
def test_play_is_legal_and_uses_every_number(state: tuple[int, ...], seed: int) -> None:
    left = list(state)
    steps = GAME.play(Random(seed), state)
    for step in steps:
        left.remove(step.left)
        left.remove(step.right)
        assert compute(step.left, step.operator, step.right) == step.result
        assert 0 <= step.result <= 40
        left.append(step.result)
    assert left == [steps[-1].result]


@pytest.mark.parametrize("state", [(1, 2), (2, 2), (3, 3, 3), (1, 2, 3), (0, 0, 5), (2, 4, 6, 8), (1, 1, 2, 9)])
def test_solution_paths_are_counted_once_each(state: tuple[int, ...]) -> None:
    assert GAME.solution_paths(state) == count_paths(state, 40)


def test_a_number_may_be_reached_by_one_path_only() -> None:
    assert CountdownGame(largest=20).solution_paths((7, 11)) == {18: 1, 4: 1}


def test_play_picks_operators_by_weight_among_the_possible_ones() -> None:
    random = Random(0)
    picked = [GAME.play(random, (2, 6))[0].operator for _ in range(4000)]
    shares = {operator: picked.count(operator) / 4000 for operator in "+-*/"}
    assert shares == pytest.approx({"+": 0.30, "-": 0.30, "*": 0.25, "/": 0.15}, abs=0.03)
    assert {str(GAME.play(random, (30, 31))[0]) for _ in range(50)} == {"31 - 30 = 1"}


def test_both_orders_of_a_commutative_step_are_played() -> None:
    random = Random(0)
    sums = {GAME.play(random, (2, 6))[0] for _ in range(200)}
    assert {Step(2, "+", 6, 8), Step(6, "+", 2, 8), Step(2, "*", 6, 12), Step(6, "*", 2, 12)} <= sums
