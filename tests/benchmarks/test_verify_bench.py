"""Verdicts per CPU-second of the pool against bare math-verify, and what hanging and absurd answers cost.

The mix is half GSM8K and half MATH, distinct pairs of a whole solution and a gold, half of them wrong: the solution of
another problem of the same set. Caches are cold, and the CPU of all processes counts but for loading the libraries.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from collections import Counter
from pathlib import Path

import polars as pl
import psutil
import pytest

from agpo.verify import Item, VerifierPool
from agpo.verify.extraction import last_box
from agpo.verify.math import decide_math
from agpo.verify.reading import _read_cached
from tests.agpo.verify import conftest  # noqa: F401, registers the hazards
from tests.agpo.verify.hazards import absurd_answers

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
PAIRS = 1000  # of each set
ANSWERS = 50_000
BOUND = 0.5  # CPU seconds an absurd or a hanging answer
STRAGGLING = 200  # answers, of which one in twenty hangs


@pytest.mark.bench
def test_pool_against_math_verify() -> None:
    pairs = _mix()
    ours, verdicts, fast = _verify(pairs)
    theirs, correct = _verify_barely(pairs)
    differences = sum(mine != (verdict == "correct") for mine, verdict in zip(correct, verdicts, strict=True))
    print(
        f"\n{len(pairs)} pairs, {fast / len(pairs):.1%} by the fast path: {len(pairs) / ours:,.0f} a CPU-second, "
        f"math-verify {len(pairs) / theirs:,.0f}, ratio {theirs / ours:.1f}; {differences} verdicts differ; "
        f"{dict(Counter(verdicts))}"
    )
    assert theirs / ours >= 8
    assert differences <= len(pairs) / 100


@pytest.mark.bench
def test_stragglers() -> None:
    """Bounds are CPU time: on a machine that has other work, they take ``share`` times as long by the clock."""
    clean = [Item("math", f"\\boxed{{{number} + x}}", f"x + {number}") for number in range(STRAGGLING)]
    mixed = [Item("hazard", "loop", "") if number % 20 == 7 else item for number, item in enumerate(clean)]
    hangs = STRAGGLING // 20
    with VerifierPool(workers=2, timeout=BOUND) as pool:
        _time(pool, clean[:40])
        clean_wall = _time(pool, clean)[-1]
        before = _time(pool, mixed[7:8] * 2)[-1]
        wall = _time(pool, mixed)
        share = max(1.0, (before + _time(pool, mixed[7:8] * 2)[-1]) / 2 / BOUND)
    last_clean = wall[STRAGGLING - hangs - 1]
    print(
        f"\n{STRAGGLING} answers, 2 workers: clean {clean_wall:.2f} s, with {hangs} that hang {wall[-1]:.2f} s, last "
        f"clean one after {last_clean:.2f} s; a bound of {BOUND} s takes {share * BOUND:.2f} s"
    )
    assert wall[-1] <= clean_wall + 1.3 * hangs * share * BOUND / 2
    assert last_clean <= clean_wall + share * BOUND


@pytest.mark.bench
def test_absurd_answers() -> None:
    answers = absurd_answers()
    costs, undecided = [], []
    for answer, gold in answers:
        _read_cached.cache_clear()
        started = time.thread_time()
        verdict = decide_math(answer, gold)
        costs.append(time.thread_time() - started)
        assert verdict is None or verdict.verdict == "wrong"
        if verdict is None:
            undecided.append(Item("math", answer, gold))
    processes = psutil.Process().children(recursive=True)
    with VerifierPool(workers=1, timeout=BOUND) as pool:
        verdicts = pool.verify(undecided)
    assert psutil.Process().children(recursive=True) == processes
    ends = Counter(f"{verdict.verdict} {verdict.reason}" for verdict in verdicts)
    quick = sum(cost < 0.005 for cost in costs) - len(undecided)  # what is left open takes little time, too
    print(
        f"\n{len(answers)} answers, {1 - len(undecided) / len(answers):.1%} decided at once, "
        f"{quick / len(answers):.1%} within 5 ms, slowest {max(costs) * 1000:.1f} ms; "
        f"the pool's {len(undecided)}: {dict(ends)}, slowest {max(verdict.seconds for verdict in verdicts):.2f} s"
    )
    assert quick >= 0.9 * len(answers)
    assert all(verdict.verdict != "correct" and verdict.seconds <= 1.2 * BOUND for verdict in verdicts)


@pytest.mark.bench
def test_memory_of_many_answers() -> None:
    sizes = []
    with VerifierPool(workers=2) as pool:
        for start in range(0, ANSWERS, ANSWERS // 10):
            numbers = range(start, start + ANSWERS // 10)
            items = [
                Item("math", f"\\boxed{{{number} + {'x' if number % 25 else 'X'}}}", f"{number} + x")
                for number in numbers
            ]
            correct = sum(verdict.correct for verdict in pool.verify(items))
            assert correct >= len(items) * 24 // 25
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            sizes.append(sum(process.memory_info().rss for process in processes) / 2**20)
    growth = (sum(sizes[-3:]) - sum(sizes[2:5])) / 3  # the first fill the caches
    print(f"\n{ANSWERS} answers, of all processes {sizes[-1]:.0f} MiB, {growth:+.1f} MiB over the last half")
    assert growth <= 0.05 * sizes[2]


def _time(pool: VerifierPool, items: list[Item]) -> list[float]:
    """Seconds after which each number of items was done."""
    done: list[float] = []
    started = time.monotonic()
    pool.verify(items, progress=lambda more: done.extend([time.monotonic() - started] * more))
    return done


def _mix() -> list[tuple[str, str]]:
    paths = DATA / "gsm8k/train.jsonl.gz", DATA / "math/train.parquet"
    for path in paths:
        if not path.exists():
            pytest.skip(f"shared/data/{path.parent.name} is absent")
    with gzip.open(paths[0], "rt", encoding="utf-8") as file:
        gsm8k = [
            (answer, answer.rpartition("####")[2].strip()) for answer in (json.loads(line)["answer"] for line in file)
        ]
    truth = pl.read_parquet(paths[1], columns=["reward_model"])["reward_model"].struct.field("ground_truth")
    math = [(solution, last_box(solution) or "2") for solution in truth.struct.field("solution")]
    draw = random.Random(0)
    pairs = []
    for rows in (gsm8k, math):
        chosen = draw.sample(rows, PAIRS)
        pairs += chosen[: PAIRS // 2]
        wrong = chosen[PAIRS // 2 :]
        pairs += [(solution, gold) for (solution, _), (_, gold) in zip(wrong, wrong[1:] + wrong[:1], strict=True)]
    draw.shuffle(pairs)
    return pairs


def _verify(pairs: list[tuple[str, str]]) -> tuple[float, list[str], int]:
    """CPU seconds, verdicts, and how many the fast path decided."""
    items = [Item("math", response, gold) for response, gold in pairs]
    with VerifierPool(workers=1) as pool:
        pool.verify([Item("math", r"\boxed{x + 1}", "1 + x")])
        _read_cached.cache_clear()
        started = _count_seconds()
        verdicts = pool.verify(items)
        spent = _count_seconds() - started
    fast = sum(decide_math(response, gold) is not None for response, gold in pairs)
    return spent, [verdict.verdict for verdict in verdicts], fast


def _count_seconds() -> float:
    """CPU seconds of this process, its living descendants, and those of their children that have ended."""
    processes = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(process.cpu_times()[:4]) for process in processes)


def _verify_barely(pairs: list[tuple[str, str]]) -> tuple[float, list[bool]]:
    from math_verify import parse, verify

    parse(r"\boxed{x}", parsing_timeout=None)
    started = time.process_time()
    correct = [
        verify(parse(f"${gold}$", parsing_timeout=None), parse(response, parsing_timeout=None), timeout_seconds=None)
        for response, gold in pairs
    ]
    return time.process_time() - started, correct
