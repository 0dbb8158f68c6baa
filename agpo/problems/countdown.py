"""Generated Countdown problems and demonstrations, deterministic by seed.

A problem is text such as ``3 5 7 2 : 24``; its gold is the same text, since the verifier replays the response. A
response is one step for each number but the first: ``3 + 5 = 8 ; 8 * 2 = 16 ; …``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from random import Random
from typing import NamedTuple

import polars as pl

from agpo.problems.countdown_game import CountdownGame, Step
from agpo.records import Problems
from agpo.settings import CountdownProblems

_PATIENCE = 20_000  # draws without a problem that may be used, after which there is taken to be none
_MISS_ATTEMPTS = 8  # plays that try to miss a target, which small games may not allow
_SLIPS = (-10, -2, -1, 1, 2, 10)


class Problem(NamedTuple):
    numbers: tuple[int, ...]  # in the order of the prompt
    target: int

    @property
    def id(self) -> str:
        """The same for every order of the numbers."""
        return f"countdown-{'-'.join(map(str, sorted(self.numbers)))}-{self.target}"

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.numbers))} : {self.target}"


class Draw(NamedTuple):
    problem: Problem
    steps: list[Step]  # a solution; none where the problem was not found by play


def generate_countdown(settings: CountdownProblems, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables `Problems` and `Demonstrations`.

    Sets: *in_distribution* (the target is what random play reached) and *hard* (the target is uniform over those with
    at most ``hard_paths`` solution paths). No problem, whatever the order of its numbers, is in two sets or splits, and
    no demonstration solves a held-out one. Held-out sets depend on neither the number of training problems nor that of
    demonstrations. ValueError if a split asks for more problems than the game has.
    """
    source = _Source(settings)
    taken: set[str] = set()
    rows: list[tuple[str, ...]] = []
    for split, count in (("selection", settings.selection), ("confirmation", settings.confirmation)):
        for name in ("in_distribution", "hard"):
            rows += _distinct_problems(source, seed, split, name, count, taken)
    held_out = frozenset(taken)
    rows += _distinct_problems(source, seed, "train", "in_distribution", settings.train, taken)
    problems = pl.DataFrame(rows, schema=Problems.column_names(), orient="row")
    return Problems.cast(problems), _demonstrate(source, seed, held_out)


def _distinct_problems(
    source: _Source, seed: int, split: str, name: str, count: int, taken: set[str]
) -> Iterator[tuple[str, ...]]:
    """Rows of one set of one split; their ids join ``taken``."""
    draws = source.fresh(Random(f"countdown/{seed}/{split}/{name}"), name, taken, split)
    for _ in range(count):
        problem = next(draws).problem
        taken.add(problem.id)
        yield problem.id, str(problem), str(problem), "countdown", split, name


def _demonstrate(source: _Source, seed: int, held_out: Container[str]) -> pl.DataFrame:
    """`Demonstrations`: solutions by play, ``noise`` of them spoiled. An id is the seed and the number of the draw."""
    settings = source.settings
    random = Random(f"countdown/{seed}/demonstrations")
    draws = source.fresh(random, "in_distribution", held_out, "demonstrations")
    prompts, responses = [], []
    for _ in range(settings.demonstrations):
        problem, steps = next(draws)
        if random.random() < settings.noise:
            steps = source.spoil(random, problem, steps)
        prompts.append(str(problem))
        responses.append(" ; ".join(map(str, steps)))
    frame = pl.DataFrame({"prompt": prompts, "response": responses}).with_row_index("draw")
    return frame.select(
        pl.format("countdown-demonstration-{}-{}", pl.lit(seed), "draw").alias("id"), "prompt", "response"
    )


class _Source:
    """Random problems of one game."""

    def __init__(self, settings: CountdownProblems) -> None:
        self.settings = settings
        self.game = CountdownGame(settings.largest)
        self._draws: dict[str, Callable[[Random], Draw | None]] = {
            "in_distribution": self._draw_played,
            "hard": self._draw_hard,
        }

    def fresh(self, random: Random, name: str, taken: Container[str], asked: str) -> Iterator[Draw]:
        """Draws of one set whose problem is not taken; ValueError, naming the setting ``asked``, when none is left."""
        draw, misses = self._draws[name], 0
        while misses < _PATIENCE:
            found = draw(random)
            if found is None or found.problem.id in taken:
                misses += 1
            else:
                misses = 0
                yield found
        raise ValueError(
            f"problems.{asked} = {getattr(self.settings, asked)} is more {name} problems than "
            f"{self.settings.numbers} numbers up to {self.settings.highest} and results up to {self.settings.largest} "
            f"give; ask for fewer, or raise problems.highest or problems.largest"
            + (" or problems.hard_paths" if name == "hard" else "")
        )

    def _draw_numbers(self, random: Random) -> tuple[int, ...]:
        return tuple(1 + int(random.random() * self.settings.highest) for _ in range(self.settings.numbers))

    def _draw_played(self, random: Random) -> Draw | None:
        """Numbers and the target that random play reached from them."""
        numbers = self._draw_numbers(random)
        steps = self.game.play(random, tuple(sorted(numbers)))
        target = steps[-1].result
        return Draw(Problem(numbers, target), steps) if target else None

    def _draw_hard(self, random: Random) -> Draw | None:
        """Numbers and any target that they reach by few paths."""
        numbers = self._draw_numbers(random)
        paths = self.game.solution_paths(tuple(sorted(numbers)))
        targets = sorted(target for target, count in paths.items() if target and count <= self.settings.hard_paths)
        return Draw(Problem(numbers, _pick(random, targets)), []) if targets else None

    def spoil(self, random: Random, problem: Problem, steps: list[Step]) -> list[Step]:
        """A wrong response. Half are a failed search: legal play that misses the target; half a slip in arithmetic.

        A target that play cannot be seen to miss gets a slip.
        """
        if random.random() < 0.5:
            for _ in range(_MISS_ATTEMPTS):
                missed = self.game.play(random, tuple(sorted(problem.numbers)))
                if missed[-1].result != problem.target:
                    return missed
        return self._slip(random, steps)

    def _slip(self, random: Random, steps: list[Step]) -> list[Step]:
        """One result is off, and the step that uses it takes the wrong number; all other results stay as played."""
        slip = int(random.random() * len(steps))
        right = steps[slip].result
        wrong = _pick(random, [right + by for by in _SLIPS if 0 <= right + by <= self.settings.largest])
        spoiled = list(steps)
        spoiled[slip] = steps[slip]._replace(result=wrong)
        for at in range(slip + 1, len(steps)):
            if steps[at].left == right:
                spoiled[at] = steps[at]._replace(left=wrong)
                break
            if steps[at].right == right:
                spoiled[at] = steps[at]._replace(right=wrong)
                break
        return spoiled


def _pick(random: Random, options: list[int]) -> int:
    """One of the options. Only ``Random.random`` promises the same stream in every Python version."""
    return options[int(random.random() * len(options))]
