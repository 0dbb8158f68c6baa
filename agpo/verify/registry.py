"""Verifiers by name.

To add one, `register` it before the first use, and give it a new version when its verdicts change. What every verifier
keeps is in `tests/agpo/verify/test_contract.py`: the same verdict each time, no exception, bounded time, an empty
response wrong (missing), but unverifiable (by cause gold) where the gold is empty or cannot be read: so `prepare` finds
golds to mend. ``golds`` tells whoever mends one what it must look like.

An in-process verifier is a function ``(response, gold) -> Verdict`` that cannot hang, such as `verify_countdown`::

    register("echo", Verifier(version=1, decide=verify_echo))

One that can hang, crash or eat memory is a module with ``warm_up()``, ``read_gold(gold) -> reference`` and
``judge(response, reference) -> Verdict`` (`agpo.verify.symbolic` is one), run in killable worker processes. ``decide``
then settles the easy cases in the caller's process and returns ``None`` for the others::

    register("proof", Verifier(version=1, decide=lambda response, gold: None, pooled="my_package.proof"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agpo.verify import countdown, gym, label, math
from agpo.verify.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Verifier:
    version: int
    decide: Callable[[str, str], Verdict | None]  # in the caller's process
    pooled: str = ""  # importable module that judges in a worker what ``decide`` leaves open
    golds: str = "what the verifier documents"  # that it can read


_VERIFIERS: dict[str, Verifier] = {}


def register(name: str, verifier: Verifier) -> None:
    if name in _VERIFIERS:
        raise ValueError(f"verifier {name!r} is registered already")
    _VERIFIERS[name] = verifier


def find_verifier(name: str) -> Verifier:
    verifier = _VERIFIERS.get(name)
    if verifier is None:
        raise ValueError(f"verifier {name!r} is unknown; accepted: {', '.join(sorted(_VERIFIERS))}")
    return verifier


def pooled_modules() -> list[str]:
    return sorted({verifier.pooled for verifier in _VERIFIERS.values() if verifier.pooled})


register(
    countdown.NAME,
    Verifier(countdown.VERSION, countdown.verify_countdown, golds="numbers, a colon and the target, as in 3 5 2 : 16"),
)
register(gym.NAME, Verifier(gym.VERSION, gym.verify_gym, golds=gym.GOLDS))
register(label.NAME, Verifier(label.VERSION, label.verify_label, golds="a scheme and one of its labels, as in esci4:S"))
register(
    math.NAME,
    Verifier(
        math.VERSION,
        math.decide_math,
        pooled="agpo.verify.symbolic",
        golds="a number, LaTeX or text, which $…$ or \\boxed{…} may enclose",
    ),
)
