"""Audit of the math verifier: a second, plain reading of a sample of its answers, and how often the two disagree.

A negative-dominant objective amplifies every false "wrong", so the rate of these is estimated while training runs, and
the answers that the two read differently are kept for people to decide (`agpo.verify.review`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from agpo.records import Disagreements
from agpo.verify.math import NAME
from agpo.verify.plain import agree_plainly

TAIL = 600  # characters of a response that people are shown


@dataclass(frozen=True)
class Rate:
    """A share with Wilson's 95 % interval; without a case the value is None and the interval is [0, 1]."""

    hits: int
    cases: int

    @property
    def value(self) -> float | None:
        return self.hits / self.cases if self.cases else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.hits, self.cases)


@dataclass(frozen=True)
class Audit:
    """``false_negative`` estimates how often the verifier calls a right answer wrong.

    Its cases are the answers that the plain reading calls correct, its hits those of them that the verifier calls
    wrong: the capture–recapture estimate of what the first of two readers misses. It is right as far as the two miss
    answers independently, and too high by what the plain reading accepts and people would not.
    """

    disagreements: pl.DataFrame  # records.Disagreements
    disagreement: Rate
    false_negative: Rate

    def metrics(self) -> Mapping[str, float]:
        found: dict[str, float] = {"verify/audited": self.disagreement.cases}
        for name, rate in (("disagreement", self.disagreement), ("false_negative", self.false_negative)):
            if rate.value is not None:
                lower, upper = rate.interval
                found |= {f"verify/{name}_rate": rate.value}
                found |= {f"verify/{name}_rate_lower": lower, f"verify/{name}_rate_upper": upper}
        return found


def audit_verdicts(
    verdicts: pl.DataFrame,
    problem_ids: Sequence[str],
    responses: Sequence[str],
    golds: Sequence[str],
    *,
    sample: int,
    seed: int,
) -> Audit:
    """Read a sample of the math verdicts (`records.Verdicts`) a second time; the other columns are in their order.

    Every set of rollouts has one sample: the ``sample`` decided rollouts with the smallest hashes of seed and id. As an
    id names its step, every step draws its own.
    """
    rows = list(zip(verdicts.iter_rows(named=True), problem_ids, responses, golds, strict=True))
    decided = [row for row in rows if row[0]["verifier"] == NAME and row[0]["verdict"] != "unverifiable"]
    drawn = sorted(decided, key=lambda row: hashlib.sha256(f"{seed}/{row[0]['id']}".encode()).digest())[:sample]
    found = []
    agreed = missed = 0
    for verdict, problem, response, gold in drawn:
        first, second = verdict["verdict"], "correct" if agree_plainly(response, gold) else "wrong"
        agreed += first == second == "correct"
        missed += first == "wrong" and second == "correct"
        if first != second:
            tail = response[-TAIL:]
            found.append((verdict["id"], problem, tail, gold, verdict["extracted"], first, second))
    table = pl.DataFrame(found, schema=Disagreements.create_empty().schema, orient="row").sort("id")
    return Audit(table, Rate(len(found), len(drawn)), Rate(missed, agreed + missed))


def wilson_interval(hits: int, cases: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (1927), by default of 95 %; [0, 1] without a case."""
    if not 0 <= hits <= cases:
        raise ValueError(f"{hits} hits of {cases} cases; accepted: from 0 to as many hits as cases")
    if cases == 0:
        return 0.0, 1.0
    share, spread = hits / cases, z * z / cases
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
