"""Tasks of reasoning-gym (the extra ``gym``), by allow-list: their scorers compare or replay, and never run the answer.

Nine of the library's scorers give the model's text to ``eval`` or sympy's parser; others can be deceived ("nan" is
every complex number, any text is "True"), count what is nearly right, or have entries that depend on the process's hash
seed or the dataset's size. Tasks were admitted after reading their scorers (0.1.25).
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, Literal

from agpo.verify.extraction import extract_answer
from agpo.verify.verdict import Verdict

NAME, VERSION = "gym", 1
LONGEST = 20_000  # characters of an answer: no scorer takes long for these
SHOWN = 300  # characters of an answer that the verdict keeps
RIGHT = 0.999  # scores are fractions; less than all of it is wrong

TASKS = frozenset(
    [
        # the answer is the generator's, to the letter
        "ab", "aiw", "arc_1d", "base_conversion", "basic_arithmetic", "binary_alternation",
        "caesar_cipher", "circuit_logic", "count_bits", "count_primes", "course_schedule", "gcd",
        "largest_island", "lcm", "leg_counting", "letter_counting", "mahjong_puzzle", "maze", "modulo_grid",
        "number_filtering", "number_sequence", "rotate_matrix", "rotten_oranges", "simple_equations",
        "simple_geometry", "string_manipulation", "string_splitting", "string_synthesis", "syllogism",
        "word_sequence_reversal",
        # but for case, spaces or the spelling of a number
        "chain_sum", "decimal_chain_sum", "dice", "family_relationships", "needle_haystack", "path_star",
        "products",
        # parsed by hand, then compared or replayed
        "fraction_simplification", "gsm_symbolic", "kakurasu", "knights_knaves", "mini_sudoku",
        "palindrome_generation", "prime_factorization", "shortest_path", "sudoku", "survo", "tower_of_hanoi",
    ]
)  # fmt: skip

GOLDS = (
    'a JSON object with "task" and either "seed" and "index", whole numbers, or "entry" with "answer" and "metadata"; '
    f"tasks: {', '.join(sorted(TASKS))}"
)

_logger = logging.getLogger(__name__)
_TAGGED = re.compile(r".*<answer>(.*?)</answer>", re.DOTALL)


def verify_gym(response: str, gold: str) -> Verdict:
    r"""Score ``response`` by the scorer of the gold's task; right is a score of at least `RIGHT`.

    ``gold`` is a JSON object: "task", one of `TASKS`, and either "seed", "index" and optionally "config", by which the
    entry is generated again, or "entry", an object with "answer" and "metadata" as generated. The final answer is the
    last ``<answer>…</answer>``, else the last ``\boxed{…}`` or what follows ``####``, else the whole response.

    Wrong for a reason: ``missing``, ``unreadable`` (longer than `LONGEST`), ``malformed`` (the scorer fails on it),
    ``mismatch``. Unverifiable by cause ``gold``: ``refused`` (a task that is not admitted), ``unparsable``; by cause
    ``infrastructure``: ``absent`` (reasoning-gym is not installed).
    """
    started = time.thread_time()

    def decide(
        verdict: Literal["correct", "wrong", "unverifiable"],
        reason: str = "",
        cause: Literal["none", "gold", "infrastructure"] = "none",
    ) -> Verdict:
        shown = None if answer is None else answer[:SHOWN]
        return Verdict(verdict, cause, reason, shown, time.thread_time() - started, NAME, VERSION)

    answer = find_answer(response)
    try:
        dataset, entry = read_gold(gold)
    except RefusedTask as error:
        _warn(str(error))
        return decide("unverifiable", "refused", "gold")
    except ImportError:
        return decide("unverifiable", "absent", "infrastructure")
    except Exception:  # of the library's generators and checks
        return decide("unverifiable", "unparsable", "gold")
    if answer is None:
        return decide("wrong", "missing")
    if len(answer) > LONGEST:
        return decide("wrong", "unreadable")
    try:
        score = float(dataset.score_answer(answer, entry))
    except Exception:
        return decide("wrong", "malformed")
    return decide("correct") if score >= RIGHT else decide("wrong", "mismatch")


class RefusedTask(ValueError):
    """The task is not on the allow-list."""


def read_gold(gold: str) -> tuple[Any, Mapping[str, Any]]:
    """The task's dataset and the entry that ``gold`` names.

    Raises `RefusedTask` with the names that are accepted, ImportError without reasoning-gym, ValueError and what the
    library raises on a gold that names no entry.
    """
    fields = json.loads(gold)
    if not isinstance(fields, dict):
        raise ValueError(f"gold is {gold[:80]!r}; accepted: a JSON object")
    task = fields.get("task")
    if task not in TASKS:
        raise RefusedTask(f"task is {task!r}; accepted: {', '.join(sorted(TASKS))}")
    config = json.dumps(fields.get("config", {}), sort_keys=True)
    if "entry" in fields:
        entry = fields["entry"]
        dataset = _make_dataset(task, 0, 1, config)
    else:
        seed, index = fields["seed"], fields["index"]
        if type(seed) is not int or type(index) is not int or index < 0:
            raise ValueError(f"seed is {seed!r} and index {index!r}; accepted: whole numbers")
        dataset, entry = _make_entry(task, seed, index, config)
    if not isinstance(entry["metadata"], dict) or not entry["answer"].strip():
        raise ValueError("entry has no metadata, or its answer is blank, which no response could give")
    return dataset, entry


def find_answer(response: str) -> str | None:
    tagged = _TAGGED.match(response)
    if tagged is not None:
        return tagged[1].strip() or None
    found = extract_answer(response)
    if found is None:
        return None
    return found.text if found.kind == "exact" else response.strip()


@cache
def _warn(message: str) -> None:
    _logger.warning(message)


@lru_cache(maxsize=256)
def _make_dataset(task: str, seed: int, size: int, config: str) -> Any:
    library = import_module("reasoning_gym")  # takes a second
    return library.create_dataset(task, seed=seed, size=size, **json.loads(config))


@lru_cache(maxsize=4096)
def _make_entry(task: str, seed: int, index: int, config: str) -> tuple[Any, Mapping[str, Any]]:
    dataset = _make_dataset(task, seed, index + 1, config)
    return dataset, dataset[index]
