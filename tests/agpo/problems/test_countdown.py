from __future__ import annotations

import re
import time

import polars as pl
import pytest

from agpo.problems.countdown import generate_countdown
from agpo.problems.countdown_game import CountdownGame
from agpo.records import Demonstrations, Problems
from agpo.settings import CountdownProblems

SETTINGS = CountdownProblems(train=300, selection=50, confirmation=100, demonstrations=4000)


def read_problem(text: str) -> tuple[tuple[int, ...], int]:
    numbers, target = text.split(" : ")
    return tuple(map(int, numbers.split(" "))), int(target)


def replay(prompt: str, response: str) -> list[str]:
    """What is wrong with a response, in order: kinds of fault. Independent of the generator."""
    numbers, target = read_problem(prompt)
    left, faults = list(numbers), []
    for line in response.split(" ; "):
        match = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", line)
        assert match, line
        a, operator, b, c = int(match[1]), match[2], int(match[3]), int(match[4])
        for operand in (a, b):
            if operand in left:
                left.remove(operand)
            else:
                faults.append("operand")
        right = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[operator]
        if right != c:
            faults.append("arithmetic")
        left.append(c)
    if left != [target]:
        faults.append("target")
    return faults


@pytest.fixture(scope="module")
def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    return generate_countdown(SETTINGS, seed=0)


def test_tables_are_what_the_records_say(tables: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    problems, demonstrations = tables
    Problems.validate(problems)
    Demonstrations.validate(demonstrations)
    counts = {(split, name): count for split, name, count in problems.group_by("split", "set").len().iter_rows()}
    assert counts == {
        ("train", "in_distribution"): 300,
        ("selection", "in_distribution"): 50,
        ("selection", "hard"): 50,
        ("confirmation", "in_distribution"): 100,
        ("confirmation", "hard"): 100,
    }
    assert problems["gold"].to_list() == problems["prompt"].to_list()
    assert set(problems["verifier"]) == {"countdown"}


def test_no_problem_is_twice_whatever_the_order_of_its_numbers(tables: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    keys = [(sorted(numbers), target) for numbers, target in map(read_problem, tables[0]["prompt"])]
    assert len({str(key) for key in keys}) == len(keys)


def test_demonstrations_show_no_held_out_problem(tables: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    problems, demonstrations = tables

    def keys(frame: pl.DataFrame) -> set[tuple[tuple[int, ...], int]]:
        return {(tuple(sorted(numbers)), target) for numbers, target in map(read_problem, frame["prompt"])}

    assert not keys(problems.filter(pl.col("split") != "train")) & keys(demonstrations)
    assert keys(problems.filter(pl.col("split") == "train")) & keys(demonstrations)


def test_problems_are_in_range_and_solvable_and_hard_ones_have_few_paths(
    tables: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    game = CountdownGame(40)
    for prompt, name in tables[0].select("prompt", "set").iter_rows():
        numbers, target = read_problem(prompt)
        assert len(numbers) == 4
        assert set(numbers) <= set(range(1, 10))
        assert 1 <= target <= 40
        paths = game.solution_paths(tuple(sorted(numbers)))[target]
        assert 1 <= paths <= (12 if name == "hard" else 10**6)


def test_noise_is_the_share_of_wrong_demonstrations_half_of_each_kind(
    tables: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    faults = [replay(prompt, response) for prompt, response in tables[1].select("prompt", "response").iter_rows()]
    misses = sum(found == ["target"] for found in faults)
    slips = sum("arithmetic" in found for found in faults)
    assert sum(bool(found) for found in faults) == misses + slips  # nothing else goes wrong
    assert misses / len(faults) == pytest.approx(0.125, abs=0.02)
    assert slips / len(faults) == pytest.approx(0.125, abs=0.02)
    assert not any("operand" in found for found in faults)  # the wrong result is carried on


def test_without_noise_every_demonstration_is_right() -> None:
    _, demonstrations = generate_countdown(SETTINGS.model_copy(update={"noise": 0.0}), seed=3)
    assert not any(replay(prompt, response) for _, prompt, response in demonstrations.iter_rows())


def test_the_verifier_agrees(tables: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    from agpo.verify import verify_countdown

    for prompt, response in tables[1].select("prompt", "response").head(300).iter_rows():
        assert verify_countdown(response, prompt).correct == (not replay(prompt, response))


def test_a_seed_decides_everything() -> None:
    small = SETTINGS.model_copy(update={"demonstrations": 100})
    first, again, other = (generate_countdown(small, seed) for seed in (7, 7, 8))
    assert first[0].equals(again[0])
    assert first[1].equals(again[1])
    assert not first[0].equals(other[0])
    assert not first[1].equals(other[1])


def test_held_out_sets_do_not_depend_on_the_size_of_the_rest() -> None:
    held_out = [
        generate_countdown(SETTINGS.model_copy(update={"train": train, "demonstrations": 1}), 0)[0].filter(
            pl.col("split") != "train"
        )
        for train in (1, 200)
    ]
    assert held_out[0].equals(held_out[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"numbers": 2, "highest": 3},
            "problems.selection = 50 is more in_distribution problems than 2 numbers up to 3",
        ),
        (
            {"highest": 3, "hard_paths": 1},
            "problems.selection = 50 is more hard .* or problems.hard_paths",
        ),
        ({"numbers": 3, "highest": 5}, "problems.train = 300 is more in_distribution problems"),
    ],
)
def test_more_problems_than_the_game_has_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_countdown(SETTINGS.model_copy(update=settings), 0)


def test_a_fifth_number_and_larger_ranges_work() -> None:
    settings = CountdownProblems(
        numbers=5, highest=20, largest=99, train=5, selection=2, confirmation=2, demonstrations=50, noise=0
    )
    problems, demonstrations = generate_countdown(settings, 0)
    assert problems.height == 13
    assert not any(replay(prompt, response) for _, prompt, response in demonstrations.iter_rows())


def test_generating_is_fast() -> None:
    started = time.process_time()
    generate_countdown(SETTINGS.model_copy(update={"demonstrations": 32_000}), 0)
    assert time.process_time() - started < 15 / 4  # 256,000 in 15 seconds leave a factor of two for the fixed part
