"""How good labels are against gold: macro-F1, accuracy, direction of the errors, by case; intervals over queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from agpo.relevance.scheme import Scheme

FloatArray = NDArray[np.float64]

_CHUNK = 1 << 20  # weights of queries drawn at once


class Interval(BaseModel):
    """A figure with its 95 % interval by a bootstrap over queries: pairs of one query are drawn together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


class LabelScores(BaseModel):
    """Labels of judged pairs against their gold. A pair without a label counts as wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    queries: int
    accuracy: Interval
    macro_f1: Interval  # mean of the F1 of the scheme's labels that stand in gold or labels
    f1: dict[str, float]  # by letter
    over_graded: float | None  # share of the wrong labels that are above the gold; None without a wrong label
    unread: int  # pairs without a label
    by_case: dict[str, float]  # accuracy of each hard case


class Labelled:
    """Labels (letters, None where there is none) of pairs with gold; the form in which two of them are compared."""

    def __init__(
        self, scheme: Scheme, gold: Sequence[str], labels: Sequence[str | None], query_ids: Sequence[str]
    ) -> None:
        if not len(gold) == len(labels) == len(query_ids):
            raise ValueError(f"{len(gold)} golds, {len(labels)} labels and {len(query_ids)} queries: not one each")
        if not len(gold):
            raise ValueError("there is no judged pair to compare labels with")
        level = {label.letter: index for index, label in enumerate(scheme)}
        self.scheme = scheme
        self.gold = np.array([level[letter] for letter in gold])
        self.labels = np.array([len(level) if letter is None else level[letter] for letter in labels])
        self.queries, self.query = np.unique(np.array(query_ids), return_inverse=True)

    @property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.gold == self.labels
        return right

    def confusions(self) -> FloatArray:
        """Pairs by query, gold level and label's level; the last label is "none": [queries, L, L + 1]."""
        levels = len(self.scheme.labels)
        found = np.zeros((len(self.queries), levels, levels + 1))
        np.add.at(found, (self.query, self.gold, self.labels), 1)
        return found


def score_labels(
    labelled: Labelled, cases: Sequence[str | None] | None = None, *, resamples: int = 2000, seed: int = 0
) -> LabelScores:
    """All figures of `LabelScores`. ``cases``: what makes each pair hard, where that is known."""
    confusions = labelled.confusions()
    drawn = _resample(confusions, resamples, seed)
    total = confusions.sum(0)
    wrong = ~labelled.right
    read = labelled.labels < len(labelled.scheme.labels)
    letters = [label.letter for label in labelled.scheme]
    return LabelScores(
        pairs=len(labelled.gold),
        queries=len(labelled.queries),
        accuracy=_interval(_accuracy(total), _accuracy(drawn)),
        macro_f1=_interval(_macro_f1(total), _macro_f1(drawn)),
        f1=dict(zip(letters, _f1(total).tolist(), strict=True)),
        over_graded=float((labelled.labels > labelled.gold)[wrong & read].sum() / wrong.sum()) if wrong.any() else None,
        unread=int((~read).sum()),
        by_case=_by_case(labelled, cases or []),
    )


def compare_macro_f1(labelled: Labelled, reference: Labelled, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Macro-F1 minus that of other labels of the same pairs, in the same order, with the same draws of queries."""
    if not np.array_equal(labelled.gold, reference.gold) or not np.array_equal(
        labelled.queries[labelled.query], reference.queries[reference.query]
    ):
        raise ValueError("the two label different pairs, or the same in another order")
    both = np.stack([labelled.confusions(), reference.confusions()], axis=1)
    drawn = _macro_f1(_resample(both, resamples, seed))
    found = _macro_f1(both.sum(0))
    return _interval(found[0] - found[1], drawn[:, 0] - drawn[:, 1])


def _resample(confusions: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Sums of the confusions of queries drawn with replacement, [resamples, …]."""
    queries = len(confusions)
    random = np.random.Generator(np.random.Philox(seed))
    flat = confusions.reshape(queries, -1)
    size = max(1, _CHUNK // queries)
    sums = [
        random.multinomial(queries, np.full(queries, 1 / queries), size=min(size, resamples - start)) @ flat
        for start in range(0, resamples, size)
    ]
    return np.concatenate(sums).reshape(resamples, *confusions.shape[1:])


def _accuracy(confusions: FloatArray) -> FloatArray:
    right: FloatArray = np.trace(confusions, axis1=-2, axis2=-1) / confusions.sum((-2, -1))
    return right


def _f1(confusions: FloatArray) -> FloatArray:
    """F1 of each label, 0 where it stands nowhere, [..., L]."""
    right = np.diagonal(confusions, axis1=-2, axis2=-1)
    either = confusions.sum(-1) + confusions.sum(-2)[..., :-1]
    f1: FloatArray = np.divide(2 * right, either, out=np.zeros(right.shape), where=either > 0)
    return f1


def _macro_f1(confusions: FloatArray) -> FloatArray:
    present = confusions.sum(-1) + confusions.sum(-2)[..., :-1] > 0
    mean: FloatArray = _f1(confusions).sum(-1) / present.sum(-1)
    return mean


def _interval(value: float | FloatArray, drawn: FloatArray) -> Interval:
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    return Interval(value=float(value), lower=float(lower), upper=float(upper))


def _by_case(labelled: Labelled, cases: Sequence[str | None]) -> dict[str, float]:
    right: Mapping[str, list[bool]] = {case: [] for case in sorted({case for case in cases if case})}
    for case, hit in zip(cases, labelled.right.tolist(), strict=bool(cases)):
        if case:
            right[case].append(hit)
    return {case: sum(hits) / len(hits) for case, hits in right.items()}
