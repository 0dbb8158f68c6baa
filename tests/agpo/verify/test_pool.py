from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agpo.verify import Item, Verdict, VerifierPool
from agpo.verify.pool import BATCH

ROOT = Path(__file__).resolve().parents[3]


def hazard(response: str, gold: str = "") -> Item:
    return Item("hazard", response, gold)


def outcome(verdict: Verdict) -> tuple[str, str, str]:
    return verdict.verdict, verdict.cause, verdict.reason


def is_hung(verdict: Verdict, cause: str = "response") -> bool:
    """Over its CPU time; on a busy machine the wall clock can be first."""
    return outcome(verdict) in (
        ("unverifiable", cause, "timeout"),
        ("unverifiable", "infrastructure", "stalled"),
    )


def descendants() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_verdicts_come_in_item_order(pool: VerifierPool) -> None:
    items = [
        Item("countdown", "1 + 2 = 3", "1 2 : 3"),
        Item("math", r"\boxed{x+1}", "1+x"),
        Item("math", r"\boxed{5}", "6"),
        hazard("fine"),
        Item("countdown", "", "1 2 : 3"),
        *(Item("math", rf"\boxed{{{n} + x}}", f"x + {n % 7}") for n in range(3 * BATCH)),
    ]
    verdicts = pool.verify(items)
    assert [(verdict.verifier, verdict.version) for verdict in verdicts[:5]] == [
        ("countdown", 1), ("math", 3), ("math", 3), ("hazard", 7), ("countdown", 1)
    ]  # fmt: skip
    assert [verdict.correct for verdict in verdicts] == [True, True, False, True, False] + [
        n == n % 7 for n in range(3 * BATCH)
    ]


def test_progress_counts_every_item_once(pool: VerifierPool) -> None:
    items = [Item("countdown", "", "1 2 : 3")] * 3 + [hazard("fine")] * 40
    steps: list[int] = []
    pool.verify(items, progress=steps.append)
    assert sum(steps) == len(items)
    assert len(steps) > 2


def test_no_items_and_cheap_items_start_no_process() -> None:
    before = descendants()
    with VerifierPool() as idle:
        assert idle.verify([]) == []
        assert idle.verify([Item("math", r"\boxed{5}", "5")])[0].correct
        assert descendants() == before


def test_what_hangs_is_killed_and_the_others_are_answered() -> None:
    before = descendants()
    with VerifierPool(workers=2, timeout=0.3) as own:
        items = [hazard("fine") for _ in range(60)]
        items[7] = items[8] = hazard("loop")
        items[31] = hazard("loop in C")
        items[59] = hazard("loop")
        verdicts = own.verify(items)
        assert [index for index, verdict in enumerate(verdicts) if is_hung(verdict)] == [7, 8, 31, 59]
        assert sum(verdict.correct for verdict in verdicts) == 56
        assert all(verdict.seconds <= 1.2 * 0.3 for verdict in verdicts)
        assert own.verify([hazard("fine")])[0].correct
    assert descendants() <= before


def test_what_takes_long_is_finished_last(pool: VerifierPool) -> None:
    items = [hazard("loop") if number % 10 == 0 else hazard("fine") for number in range(40)]
    steps: list[int] = []
    verdicts = pool.verify(items, progress=steps.append, timeout=0.3)
    assert [is_hung(verdict) for verdict in verdicts] == [number % 10 == 0 for number in range(40)]
    assert sum(steps[:-4]) == 36
    assert steps[-4:] == [1, 1, 1, 1]


def test_what_a_first_try_is_too_short_for_has_all_of_its_bound(pool: VerifierPool) -> None:
    verdicts = pool.verify([hazard("spin 0.3"), *[hazard("fine")] * 9], timeout=2.0)
    assert all(verdict.correct for verdict in verdicts)
    assert verdicts[0].seconds >= 0.3


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (hazard("crash"), ("unverifiable", "response", "crash")),
        (hazard("exit"), ("unverifiable", "response", "crash")),
        (hazard("raise"), ("unverifiable", "response", "crash")),
        (hazard("recurse"), ("unverifiable", "response", "unreadable")),
        (hazard("allocate"), ("unverifiable", "response", "memory")),
        (hazard("hide allocation"), ("unverifiable", "response", "memory")),
        (hazard("sleep 30"), ("unverifiable", "infrastructure", "stalled")),
        (hazard("sleep 0.5"), ("correct", "none", "")),  # longer than the bound, but it is one of CPU time
        (hazard("grow 100"), ("correct", "none", "")),
    ],
    ids=lambda value: value.response if isinstance(value, Item) else "",
)
def test_each_end_of_a_worker_has_its_cause(pool: VerifierPool, item: Item, expected: tuple[str, str, str]) -> None:
    verdicts = pool.verify([hazard("fine"), item, hazard("fine")], timeout=0.3)
    assert outcome(verdicts[1]) == expected
    assert verdicts[0].correct
    assert verdicts[2].correct


def test_a_gold_that_hangs_is_no_fault_of_the_response(pool: VerifierPool) -> None:
    assert is_hung(pool.verify([hazard("fine", "loop")], timeout=0.3)[0], cause="gold")


def test_an_item_that_stalls_is_tried_once_more(pool: VerifierPool, tmp_path: Path) -> None:
    stalls = [hazard(f"stall once {tmp_path / name}") for name in "ab"]
    items = [hazard("loop"), *stalls, *[hazard("fine")] * 45]  # the first three are one message
    verdicts = pool.verify(items, timeout=0.3)
    assert is_hung(verdicts[0])
    assert all(verdict.correct for verdict in verdicts[1:])


def test_a_worker_killed_from_outside_is_replaced(pool: VerifierPool) -> None:
    worker = int(pool.verify([hazard("fine")])[0].extracted or 0)
    os.kill(worker, 9)
    assert wait_for(lambda: not psutil.pid_exists(worker))
    again = pool.verify([hazard("fine")] * 4)
    assert all(verdict.correct for verdict in again)
    assert str(worker) not in {verdict.extracted for verdict in again}


def test_a_pool_serves_several_threads_at_once(pool: VerifierPool) -> None:
    found: dict[int, list[Verdict]] = {}

    def verify(thread: int) -> None:
        found[thread] = pool.verify([Item("math", rf"\boxed{{x + {n}}}", f"{thread} + x") for n in range(8)])

    threads = [threading.Thread(target=verify, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {thread: [verdict.correct for verdict in verdicts] for thread, verdicts in found.items()} == {
        thread: [n == thread for n in range(8)] for thread in range(4)
    }


def test_a_forked_child_starts_its_own_workers(pool: VerifierPool) -> None:
    worker = pool.verify([hazard("fine")])[0].extracted
    child = os.fork()
    if child == 0:
        status = 1
        try:
            verdict = pool.verify([hazard("fine")])[0]
            status = 0 if verdict.correct and verdict.extracted != worker else 2
            pool.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.verify([hazard("fine")])[0].extracted == worker


def test_a_killed_parent_leaves_no_process() -> None:
    script = """
from agpo.verify import Item, VerifierPool
from tests.agpo.verify import conftest
VerifierPool(2, timeout=600).verify([Item("hazard", text, "") for text in ("loop in C", "sleep 600")])
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        watched = psutil.Process(parent.pid)

        def working() -> list[psutil.Process]:
            nursery = watched.children()
            return [worker for process in nursery for worker in process.children()]

        assert wait_for(lambda: len(working()) == 2 and max(sum(w.cpu_times()[:2]) for w in working()) > 0.1)
        started = watched.children(recursive=True)
        assert len(started) == 3
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_close_ends_everything_and_the_pool_can_be_used_again() -> None:
    before = descendants()
    own = VerifierPool(workers=1)
    assert own.verify([hazard("fine")])[0].correct
    own.close()
    assert descendants() <= before
    own.close()
    assert own.verify([hazard("fine")])[0].correct
    own.close()
    assert descendants() <= before


def test_workers_that_cannot_start_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with VerifierPool() as own, pytest.raises(RuntimeError, match="worker processes ended with exit code 1"):
        own.verify([hazard("fine")])


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"timeout": 0.0}, {"timeout": float("nan")}, {"memory": -1}])
def test_a_wrong_bound_is_refused_by_name(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; accepted: above 0"):
        VerifierPool(**wrong)  # type: ignore[arg-type]


def test_an_unknown_verifier_is_refused_by_name(pool: VerifierPool) -> None:
    with pytest.raises(ValueError, match=r"verifier 'maths' is unknown; accepted: countdown, .*math"):
        pool.verify([Item("maths", "", "")])
