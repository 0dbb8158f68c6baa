from __future__ import annotations

import ast
import inspect
import json
import logging
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from agpo.verify import Item, VerifierPool
from agpo.verify.gym import LONGEST, TASKS, RefusedTask, find_answer, read_gold, verify_gym

DATASETS = pytest.importorskip("reasoning_gym.factory", reason="the extra gym is not installed").DATASETS

UNSAFE = [
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
]  # fmt: skip
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "parse_expr",
    "sympify",
    "literal_eval",
    "simplify",
    "Fraction",
    "system",
    "open",
}


def write_gold(task: str, index: int = 0, **fields: Any) -> str:
    return json.dumps({"task": task, "seed": 3, "index": index, **fields})


def test_the_scorers_are_those_that_were_read() -> None:
    """Of another release they are to be read again. ``reasoning_gym.__version__`` is that of an older one."""
    assert version("reasoning-gym") == "0.1.25"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_generators_answer_is_right_and_anothers_or_code_is_wrong(task: str, tmp_path: Path) -> None:
    _, entry = read_gold(write_gold(task))
    right = verify_gym(f"I think.\n<answer>{entry['answer']}</answer>", write_gold(task))
    assert (right.verdict, right.verifier, right.version) == ("correct", "gym", 1)
    mark = tmp_path / "mark"
    probes = [
        f"__import__('pathlib').Path({str(mark)!r}).touch()",
        "nan",
        "inf",
        "[]",
        "9**9**9",
        "1e999999999",
        "x" * LONGEST,
    ]
    for probe in probes:
        started = time.thread_time()
        verdict = verify_gym(f"<answer>{probe}</answer>", write_gold(task))
        assert verdict.verdict == "wrong", probe
        assert verdict.reason in ("mismatch", "malformed")
        assert time.thread_time() - started < 0.2
    assert not mark.exists()


def find_calls(scorer: type) -> set[str]:
    """Names of all functions that a dataset's scorer may call."""
    modules = {sys.modules[base.__module__] for base in scorer.__mro__ if base.__module__.startswith("reasoning_gym")}
    trees = [ast.parse(inspect.getsource(module)) for module in modules]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    called, waiting = set[str](), ["score_answer"]
    while waiting:
        name = waiting.pop()
        if name in called:
            continue
        called.add(name)
        named = [function for function in functions if function.name == name]
        calls = [node.func for function in named for node in ast.walk(function) if isinstance(node, ast.Call)]
        waiting += [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return called


@pytest.mark.parametrize("task", sorted(TASKS))
def test_no_scorer_gives_text_to_an_interpreter(task: str) -> None:
    assert not find_calls(DATASETS[task][0]) & FORBIDDEN


@pytest.mark.parametrize("task", UNSAFE)
def test_a_scorer_that_does_is_found(task: str) -> None:
    assert find_calls(DATASETS[task][0]) & FORBIDDEN


@pytest.mark.parametrize("task", [*UNSAFE, "complex_arithmetic", "no_such_task"])
def test_other_tasks_are_refused_by_name(task: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RefusedTask, match=f"task is '{task}'; accepted: ab, aiw, .*word_sequence_reversal"):
        read_gold(write_gold(task))
    with caplog.at_level(logging.WARNING):
        verdict = verify_gym("<answer>1</answer>", write_gold(task))
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("unverifiable", "gold", "refused")
    assert caplog.messages[0].startswith(f"task is '{task}'; accepted: ab, ")


@pytest.mark.parametrize(
    "gold",
    [
        "", "5", "[]", "{", '{"task": "gcd"}', write_gold("gcd", -1), write_gold("gcd", seed="x"),
        write_gold("gcd", seed=True),
        write_gold("gcd", config={"min_numbers": -5}), write_gold("gcd", config={"colour": 1}),
        write_gold("gcd", config=5),
        json.dumps({"task": "gcd", "entry": {"answer": "5"}}), json.dumps({"task": "gcd", "entry": 5}),
        json.dumps({"task": "gcd", "entry": {"answer": " ", "metadata": {}}}),
    ],
)  # fmt: skip
def test_a_gold_that_names_no_entry_is_unverifiable(gold: str) -> None:
    verdict = verify_gym("<answer>5</answer>", gold)
    assert (verdict.verdict, verdict.cause) == ("unverifiable", "gold")
    assert verdict.reason in ("unparsable", "refused")


def test_an_entry_can_be_in_the_gold() -> None:
    entry = {"question": "?", "answer": "12", "metadata": {}}
    gold = json.dumps({"task": "gcd", "entry": entry})
    assert [verify_gym(text, gold).reason for text in ("12", "13", "<answer></answer>", "2" * (LONGEST + 1))] == [
        "", "mismatch", "missing", "unreadable"
    ]  # fmt: skip


def test_an_answer_that_breaks_the_scorer_is_malformed() -> None:
    verdict = verify_gym("<answer>two × three</answer>", write_gold("prime_factorization"))
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("wrong", "none", "malformed")


def test_partial_credit_is_wrong() -> None:
    _, entry = read_gold(write_gold("gcd"))
    assert verify_gym(f"<answer>It is {entry['answer']}</answer>", write_gold("gcd")).reason == "mismatch"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>1</answer> no, <answer> 2\n3 </answer>", "2\n3"),
        (r"so \boxed{2}", "2"),
        ("#### 2", "2"),
        (" 2\n3\n", "2\n3"),
        ("<answer> </answer>", None),
        (" ", None),
    ],
)
def test_the_final_answer(response: str, answer: str | None) -> None:
    assert find_answer(response) == answer


def test_it_is_registered(pool: VerifierPool) -> None:
    _, entry = read_gold(write_gold("lcm", 2, config={"max_numbers": 3}))
    gold = write_gold("lcm", 2, config={"max_numbers": 3})
    assert pool.verify([Item("gym", entry["answer"], gold)])[0].correct


def test_without_the_library_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    verdict = verify_gym("5", write_gold("gcd", 123))
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("unverifiable", "infrastructure", "absent")
