"""A pooled verifier that does to its worker what the response says."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from agpo.verify.verdict import Verdict


def warm_up() -> None:
    pass


def read_gold(gold: str) -> str:
    if gold == "loop":
        _loop()
    return gold


def judge(response: str, gold: str) -> Verdict:
    match response.split():
        case ["loop"]:
            _loop()
        case ["loop", "in", "C"]:
            9 ** (9**9)
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["stall", "once", path]:
            if not Path(path).exists():
                Path(path).touch()
                time.sleep(30)
        case ["crash"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["exit"]:
            os._exit(0)
        case ["raise"]:
            raise ArithmeticError
        case ["recurse"]:
            judge(response, gold)
        case ["allocate"]:
            bytearray(2**40)
        case ["hide", "allocation"]:
            _grow_quietly()
            return Verdict("wrong", "none", "mismatch")
        case ["grow", mebibytes]:
            bytearray(b"x") * (int(mebibytes) * 2**20)
    return Verdict("correct", extracted=str(os.getpid()))


def _loop() -> None:
    while True:
        pass


def _grow_quietly() -> None:
    held = []
    try:
        while True:
            held.append(b"x" * 2**20)
    except MemoryError:
        pass
