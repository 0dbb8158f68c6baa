"""The Countdown game: legal moves, random play and the solution paths of a set of numbers."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from functools import lru_cache
from itertools import accumulate, permutations
from random import Random
from typing import NamedTuple

OPERATORS = ("+", "-", "*", "/")

# How often random play picks each operator, among those with a legal move.
_OPERATOR_WEIGHTS = {"+": 0.30, "-": 0.30, "*": 0.25, "/": 0.15}
_CACHED_STATES = 1 << 15


class Step(NamedTuple):
    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right} = {self.result}"


class Move(NamedTuple):
    """A legal step and the numbers, sorted, that are left after it."""

    step: Step
    rest: tuple[int, ...]


class Moves(NamedTuple):
    """All distinct legal moves of a state, and the running sums of the weights with which random play picks them."""

    moves: tuple[Move, ...]
    cumulative: tuple[float, ...]


class CountdownGame:
    """Numbers are combined two at a time until one is left; every result is an integer in 0 … ``largest``.

    A state is its numbers in ascending order. There is always a move: the larger number minus the smaller one.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.moves = lru_cache(_CACHED_STATES)(self._moves)
        self.solution_paths = lru_cache(_CACHED_STATES)(self._solution_paths)

    def play(self, random: Random, numbers: tuple[int, ...]) -> list[Step]:
        """Random legal steps from a state to one number: an operator by weight, then any pair that it may combine."""
        steps = []
        while len(numbers) > 1:
            moves, cumulative = self.moves(numbers)
            move = moves[bisect(cumulative, random.random() * cumulative[-1], 0, len(moves) - 1)]
            steps.append(move.step)
            numbers = move.rest
        return steps

    def _moves(self, numbers: tuple[int, ...]) -> Moves:
        ways = Counter(
            (left, operator, right)
            for left, right in permutations(numbers, 2)
            for operator in OPERATORS
            if self._result(left, operator, right) is not None
        )
        totals: Counter[str] = Counter()
        for (_, operator, _), count in ways.items():
            totals[operator] += count
        moves = []
        for left, operator, right in ways:
            result = self._result(left, operator, right)
            assert result is not None
            rest = list(numbers)
            rest.remove(left)
            rest.remove(right)
            moves.append(Move(Step(left, operator, right, result), tuple(sorted([*rest, result]))))
        weights = (_OPERATOR_WEIGHTS[operator] * count / totals[operator] for (_, operator, _), count in ways.items())
        return Moves(tuple(moves), tuple(accumulate(weights)))

    def _result(self, left: int, operator: str, right: int) -> int | None:
        """What the step gives, or None where it is not legal."""
        if operator == "+":
            result = left + right
        elif operator == "-":
            result = left - right
        elif operator == "*":
            result = left * right
        else:
            result = left // right if right and left % right == 0 else -1
        return result if 0 <= result <= self.largest else None

    def _solution_paths(self, numbers: tuple[int, ...]) -> dict[int, int]:
        """For every target that the state reaches, the number of its paths: sequences of distinct steps.

        Steps that differ in the order of the operands of + or * only are one step.
        """
        if len(numbers) == 1:
            return {numbers[0]: 1}
        paths: Counter[int] = Counter()
        for (left, operator, right, _), rest in self.moves(numbers).moves:
            if operator in "-/" or left >= right:
                paths.update(self.solution_paths(rest))
        return dict(paths)
