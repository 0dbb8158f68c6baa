"""A pooled verifier that does to its worker what the response says, and answers that are absurd on purpose."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import cycle
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
        case ["spin", seconds]:
            until = time.thread_time() + float(seconds)
            while time.thread_time() < until:
                pass
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


GOLDS = ("5", r"\frac{1}{2}", "x+1", r"\text{Monday}", "(1,2)", r"\sqrt{2}")


def absurd_answers() -> list[tuple[str, str]]:
    """Some 300 pairs of a boxed answer that is meant to do harm and a gold that it does not equal."""
    parts = (_towers, _factorials, _functions, _nested, _long, _marks, _slow)
    return [
        (f"\\boxed{{{answer}}}", gold) for part in parts for answer, gold in zip(part(), cycle(GOLDS), strict=False)
    ]


def _towers() -> Iterator[str]:
    for base in ("2", "7", "9", "10", "99", "1.5", r"\frac{3}{2}", "(-3)"):
        yield f"{base}^{{9^{{9^9}}}}"
    for depth in (3, 4, 10, 100, 1000):
        yield "9^{" * depth + "9" + "}" * depth
    yield from (
        "10^10^10",
        "10^{10^{10}}",
        "10**10**10",
        "9^9^9^9^9",
        "2^{2^{2^{2^{2^{2}}}}}",
        "-9^{9^{9}}",
        "9^{9^9}-1",
        "1-9^{9^9}",
        r"3\cdot 9^{9^9}",
        r"\frac{9^{9^9}}{7}",
        r"\frac{7}{9^{9^9}}",
        r"10^{-10^{10}}",
        r"\sqrt{9^{9^9}}",
        r"\sqrt[3]{9^{9^9}}",
        r"9^{9^9}\pi",
        "1e999999999",
        "10^{1000000}",
        "2^{123456789}",
        "2^{0.5 \\cdot 9^{99}}",
        r"9^{9^9}\text{ dollars}",
        r"9^{9^9}\%",
        r"x = 9^{9^9}",
        r"(9^{9^9}, 1)",
        r"\{9^{9^9}\}",
        r"[0, 9^{9^9}]",
        r"|9^{9^9}|",
        r"\left(9^{9^9}\right)^{9^{9^9}}",
        r"x^{9^{9^9}}",
        r"(x+1)^{9^{9^9}}",
        r"x + 9^{9^9}",
    )


def _factorials() -> Iterator[str]:
    for n in ("9", "20", "100", "10^{6}", "1000000"):
        yield f"(({n}!)!)!"
        yield f"{n}!!!!!!"
    yield from (
        "99999!",
        "(9^{9^9})!",
        "(10^{100})!",
        r"100000!+1",
        r"\frac{100000!}{3}",
        r"\sqrt{100000!}",
        "((9!)!)^{(9!)!}",
        r"\binom{10^9}{5\cdot 10^8}",
        r"\binom{99999}{50000}",
        r"\prod_{k=1}^{1000000} k",
        r"\sum_{k=1}^{1000000} k^k",
        r"\Gamma(10^{9})",
        r"\prod_{p<10^9} p",
    )


def _functions() -> Iterator[str]:
    for name in ("sin", "cos", "tan", "cot", "sec", "csc", "ln", "exp", "arctan", "sinh"):
        yield rf"\{name}(9^{{9^9}})"
    for name in ("sin", "cos", "tan"):
        yield rf"\{name} 10^{{10^{{10}}}}"
        yield rf"\{name}{{((9!)!)!}}"
        yield rf"\{name}\left(2^{{123456789}}\right)"
        yield rf"2\{name}(9^{{9^9}})+1"
    yield from (
        r"\sin^2(9^{9^9})",
        r"\sqrt{\sin(9^{9^9})}",
        r"e^{9^{9^9}}",
        r"e^{e^{e^{e^{10}}}}",
        r"e^{10^{10}}",
        r"\pi^{9^{9^9}}",
        r"\pi^{\pi^{\pi^{\pi^\pi}}}",
        r"\log_{3}(9^{9^9})",
        r"\lfloor 9^{9^9} \rfloor",
        r"\lfloor \pi \cdot 10^{10^{10}} \rfloor",
        r"9^{9^9} \mod 7",
        r"\zeta(10^{9})",
        r"\lim_{n\to\infty} n^{n^n}",
        r"\int_0^{10^9} x^x dx",
        r"\sum_{n=1}^{\infty} \frac{1}{n^{n^n}}",
        r"\sin(\sin(\sin(9^{9^9})))",
        r"|\sin(9^{9^9})|",
    )


def _nested() -> Iterator[str]:
    for depth in (100, 1000, 10_000):
        yield "{" * depth + "7" + "}" * depth
        yield "(" * depth + "7" + ")" * depth
        yield r"\{" * depth + "7" + r"\}" * depth
        yield r"\frac{1}{" * depth + "7" + "}" * depth
        yield r"1+\frac{1}{1+" * depth + "7" + "}" * depth
        yield r"\frac{" * depth + "x" + "}{2}" * depth
        yield r"\sqrt{" * depth + "7" + "}" * depth
        yield r"\sqrt{2+" * depth + "7" + "}" * depth
        yield r"\sin(" * depth + "1" + ")" * depth
        yield "|" * depth + "7" + "|" * depth
        yield "x^{" * depth + "x" + "}" * depth
        yield r"\left(" * depth + "7" + r"\right)" * depth
        yield "-" * depth + "7"
    yield r"\boxed{" * 10_000 + "7" + "}" * 10_000
    yield "[" * 5000 + "7" + "]" * 5000
    yield r"\text{" * 5000 + "7" + "}" * 5000


def _long() -> Iterator[str]:
    n = 100_000
    for unit in (
        "9",
        "x",
        "ab ",
        "x+",
        "1+",
        "1,",
        "-",
        "(",
        ")",
        "{",
        "}",
        "[",
        "^",
        "$",
        "\\",
        "\\\\",
        "_",
        "!",
        "=",
        " 1",
        "1 2 ",
        "\n1",
        "\t",
        "é",
        "٣",
        "𝟗",
        "７",
        "½",
        "∞",
        "\u202e7",
        "\u200b7",
        "\u20dd",
        "\x00",
        "7\x00",
        "\\frac",
        "\\sqrt",
        "\\frac12",
        "\\sin",
        "\\cdot 2",
        "x^2+",
        "&",
        "\\infty",
        "\\boxed{}",
        "\\boxed{",
        "#### ",
        "answer is ",
        "\\text{a}",
        "\\cup",
        "7%",
        "\\begin{matrix}",
        "<",
        "a=",
        "7.",
        "7:",
        "**7**",
        "\ud800",
    ):
        yield unit * (n // len(unit))
    yield "0." + "3" * n
    yield "0." + "142857" * (n // 6)
    yield "3." + "14159" * (n // 5)
    yield "7" + "0" * n
    yield "-" + "7" * n + "." + "7" * n
    yield "7" * n + "/" + "3" * n
    yield "0." + "0" * n + "7"
    yield r"0.\overline{" + "142857" * 15_000 + "}"
    yield ",".join(str(k) for k in range(20_000))
    yield r"\{" + ", ".join(str(k) for k in range(20_000)) + r"\}"
    yield "+".join(f"x^{{{k}}}" for k in range(15_000))
    yield "+".join(rf"\frac{{1}}{{{k}}}" for k in range(1, 8_000))
    yield r"\begin{pmatrix}" + r"\\".join("&".join("7" * 5) for _ in range(8000)) + r"\end{pmatrix}"
    yield r"\cup".join(f"({k},{k + 1})" for k in range(8000))


def _marks() -> Iterator[str]:
    yield from (
        "7\x00",
        "\x007",
        "\u202e7",
        "\u200f\u200e7\u200f",
        "7\ufeff",
        "٧",
        "७",
        "𝟟",
        "７",
        "⁷",
        "Ⅶ",
        "七",
        "7\u0301",
        "0.\u0663",
        "٣٫٥",
        "1٬000",
        "7}",
        "{7",
        "{{7}",
        "}7{",
        "(7",
        "7)",
        "[7)",
        r"\frac{7}",
        r"\frac{7}{",
        r"\sqrt[",
        r"\left(7",
        "^7",
        "7^",
        "7^^7",
        "7//8",
        "7//",
        r"7\\8",
        "$7",
        "7$$8",
        r"\text{7",
        "\\",
        "7\\",
        "%7",
        "7%%",
        "0.777...",
        r"0.\overline{7}",
        "0.(7)",
        r"0.77\ldots",
        "7e7e7",
        "1/0",
        r"\frac{7}{0}",
        r"\frac{0}{0}",
        r"\infty-\infty",
        "nan",
        "__import__('os').system('true')",
        "().__class__",
        "import os",
        "=7",
        "7=8=9",
        "==",
        r"\def\a{\a\a}\a",
    )


def _slow() -> Iterator[str]:
    yield from (
        r"(x+1)^{100000}",
        r"(x+y+z)^{500}",
        r"(1+x+x^2)^{3000}",
        r"x^{x^{x^{x^{x}}}}",
        r"\sqrt[1000000007]{2}",
        r"\frac{x^{10000}-1}{x-1}",
        r"\cos(x)^{5000}",
        r"\sqrt{x^{9999}+1}^{9999}",
        r"\sum_{k=0}^{100000} x^k",
        r"\prod_{k=1}^{10000}(x-k)",
        r"\tan(\tan(\tan(\tan(x))))",
        r"\int x^{x} \sin(x^{x}) dx",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}^{1000000}",
        r"\log(\log(\log(\log(x))))^{999}",
        r"x^{100000}+x^{99999}+7",
        r"\sqrt{2}^{\sqrt{2}^{\sqrt{2}^{\sqrt{2}^{99}}}}",
        r"(\sqrt{2}+\sqrt{3})^{4000}",
        r"123456789^{98765}",
        "1" * 3000 + "*" + "3" * 3000,
        "(1+i)^{1000000}",
        r"(0.1234567+x)^{3333}",
        r"|x|^{|x|^{|x|}}",
        r"2^{2^{x}}^{2^{x}}",
        "x in (1, 2, 9**9**9)",
        r"\{x : x^{9^9} > 7\}",
        r"\sin(10^{22}x)^{300}",
    )
