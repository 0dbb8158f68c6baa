"""The student's gate: may a student become the one that serves? The rule is our choice; the tests simulate it.

Everything is judged on the confirmation pairs, by draws of queries that both sides share (paired bootstrap):

- quality: macro-F1, student − champion, with its 95 % interval. *Better* when the interval is above 0, *worse* when it
  is below. A family without a champion compares with the stronger of the baselines `FLOOR`: a student that does not
  beat what needs no student is of no use.
- cases: accuracy on each hard case, student − champion. A case is *lost* when its upper bound is below −margin; all
  cases are bounded together (max-t), one-sided at the given confidence. Cases of fewer than `FEWEST_QUERIES` queries
  are shown and not judged, and against a baseline none are: one that always gives the same label has cases all right.

Better without a lost case promotes; worse or a lost case rejects; anything else is inconclusive and leaves the
champion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from agpo.evaluation.bootstrap import resample_means, simultaneous_bounds
from agpo.evaluation.comparison import points
from agpo.relevance import Interval, Labelled, LabelScores, compare_macro_f1, score_labels
from agpo.settings import StudentJudging

FLOOR = ("majority", "overlap")
FEWEST_QUERIES = 10


class CaseComparison(BaseModel):
    """A difference in a case's accuracy between student and champion, as shares; the bounds of all cases hold together.

    A case that is not judged has no bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    pairs: int
    queries: int
    reference: float
    student: float
    lower: float | None
    upper: float | None

    def __str__(self) -> str:
        difference = points(self.student - self.reference)
        bounds = "" if self.upper is None else f" [{points(self.lower or 0.0)}, {points(self.upper)}]"
        return f"{self.case}: {difference} points{bounds}"


class StudentDecision(BaseModel):
    """The gate's outcome with everything that it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Literal["promote", "reject", "inconclusive"]
    quality: Literal["better", "worse", "undecided"]
    reference: str  # champion, or the baseline that stands for one
    reasons: list[str]
    notes: list[str]  # what a reader should know beside the reasons
    macro_f1: Interval  # student − reference
    cases: list[CaseComparison]  # student − champion; none against a baseline
    scores: dict[str, LabelScores]  # student and champion, or the baselines of `FLOOR`
    margin: float
    confidence: float
    resamples: int
    seed: int


def decide(
    labelled: Mapping[str, Labelled], cases: Sequence[str | None], settings: StudentJudging, seed: int
) -> StudentDecision:
    """Judge the model "student" by labels of the same pairs in the same order.

    Args:
        labelled: "student", baselines and, where there is one, "champion".
        cases: what makes each pair hard, where that is known.

    Raises:
        ValueError: there is neither a champion nor a baseline of `FLOOR`, or two are labels of different pairs.
    """
    rivals = _find_rivals(labelled)
    scores = {
        name: score_labels(labelled[name], cases, resamples=settings.resamples, seed=seed)
        for name in ("student", *rivals)
    }
    reference = max(rivals, key=lambda name: scores[name].macro_f1.value)
    student, other = labelled["student"], labelled[reference]
    difference = compare_macro_f1(student, other, resamples=settings.resamples, seed=seed)
    compared = compare_cases(student, other, cases, settings, seed) if reference == "champion" else []
    quality = _judge_quality(difference)
    sentence = _describe_quality(quality, difference, reference, len(student.queries))
    against = ([sentence] if quality == "worse" else []) + [
        f"case lost: {entry}, beyond the margin of {points(-settings.margin)}"
        for entry in compared
        if entry.upper is not None and entry.upper < -settings.margin
    ]
    return StudentDecision(
        outcome="reject" if against else "promote" if quality == "better" else "inconclusive",
        quality=quality,
        reference=reference,
        reasons=against or [sentence, *_describe_cases(compared, settings.margin)],
        notes=_notes(compared, reference),
        macro_f1=difference,
        cases=compared,
        scores=scores,
        **settings.model_dump(),
        seed=seed,
    )


def compare_cases(
    student: Labelled, reference: Labelled, cases: Sequence[str | None], settings: StudentJudging, seed: int
) -> list[CaseComparison]:
    """Accuracy by case, of labels of the same pairs in the same order. ``cases``: a pair's, where it is known."""
    case = np.array([name or "" for name in cases])
    gained = student.right.astype(float) - reference.right
    names = sorted(set(case.tolist()) - {""})
    queries = {name: len(np.unique(student.query[case == name])) for name in names}
    judged = [name for name in names if queries[name] >= FEWEST_QUERIES]
    bounds: dict[str, tuple[float, float]] = {}
    if judged:
        # A case's accuracy is a ratio: of what was gained on it to its pairs, both summed over the drawn queries.
        sums = np.zeros((len(student.queries), 2 * len(judged)))
        for column, name in enumerate(judged):
            rows = case == name
            np.add.at(sums[:, column], student.query[rows], gained[rows])
            np.add.at(sums[:, len(judged) + column], student.query[rows], 1.0)
        gains, pairs = np.split(resample_means(sums, settings.resamples, seed, "cases"), 2, axis=1)
        drawn = np.divide(gains, pairs, out=np.zeros_like(gains), where=pairs > 0)
        estimates = np.array([gained[case == name].mean() for name in judged])
        found = simultaneous_bounds(estimates, drawn, settings.confidence)
        bounds = dict(zip(judged, zip(found.lower.tolist(), found.upper.tolist(), strict=True), strict=True))
    return [
        CaseComparison(
            case=name,
            pairs=int((case == name).sum()),
            queries=queries[name],
            reference=float(reference.right[case == name].mean()),
            student=float(student.right[case == name].mean()),
            lower=bounds[name][0] if name in bounds else None,
            upper=bounds[name][1] if name in bounds else None,
        )
        for name in names
    ]


def _find_rivals(labelled: Mapping[str, Labelled]) -> list[str]:
    rivals = [name for name in (("champion",) if "champion" in labelled else FLOOR) if name in labelled]
    if not rivals:
        raise ValueError(
            f"there is no champion, and no baseline to stand for one: found {', '.join(sorted(labelled))}; accepted: "
            f"at least one of {', '.join(FLOOR)}"
        )
    return rivals


def _judge_quality(difference: Interval) -> Literal["better", "worse", "undecided"]:
    return "better" if difference.lower > 0 else "worse" if difference.upper < 0 else "undecided"


def _describe_quality(quality: str, difference: Interval, reference: str, queries: int) -> str:
    whose = "the champion's" if reference == "champion" else f"that of the baseline {reference}"
    verdict = {
        "better": f"macro-F1 above {whose}",
        "worse": f"macro-F1 below {whose}",
        "undecided": f"macro-F1 not shown to be above {whose}",
    }[quality]
    interval = f"{points(difference.value)} points [{points(difference.lower)}, {points(difference.upper)}]"
    needed = "" if quality != "undecided" else f"; {_needed(difference, queries)}"
    return f"{verdict}: {interval}{needed}"


def _describe_cases(compared: Sequence[CaseComparison], margin: float) -> list[str]:
    judged = [entry for entry in compared if entry.upper is not None]
    if not judged:
        return []
    worst = min(judged, key=lambda entry: entry.student - entry.reference)
    return [f"no case lost beyond the margin of {points(-margin)} points with evidence; the lowest is {worst}"]


def _needed(difference: Interval, queries: int) -> str:
    reach = difference.value - difference.lower if difference.value > 0 else difference.upper - difference.value
    needed = math.inf if difference.value == 0 else queries * (reach / difference.value) ** 2
    if needed > 1000 * queries:
        return "no practical number of queries would decide"
    return f"about {int(float(f'{needed:.2g}')):,} queries (here {queries:,}) would decide if the difference stands"


def _notes(compared: Sequence[CaseComparison], reference: str) -> list[str]:
    notes = []
    if reference != "champion":
        notes.append(f"there is no champion yet; the baseline {reference} stands for one")
    few = [entry.case for entry in compared if entry.upper is None]
    if few:
        notes.append(f"not judged, having fewer than {FEWEST_QUERIES} queries: {', '.join(few)}")
    return notes
