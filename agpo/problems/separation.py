"""Training questions kept apart from what is evaluated, and from their own near-duplicates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from agpo.problems.contamination import WHOLE, EvaluationSet, Overlap, SetOverlaps, find_overlaps
from agpo.problems.duplicates import find_near_duplicates
from agpo.problems.pair import Pair
from agpo.problems.reader import read_rows
from agpo.problems.source import EvaluationFile, find_evaluation_files
from agpo.problems.split import Split, assign_splits
from agpo.problems.table import BadField, CheckedRows, read_text
from agpo.records import Quarantine
from agpo.settings import RowProblems

_LOG = logging.getLogger("agpo")

HELD_OUT: tuple[Split, ...] = ("confirmation", "selection")


@dataclass(frozen=True)
class _Texts:
    """What is compared of rows, and the split of each."""

    ids: list[str]
    questions: list[str]
    splits: list[Split | None]

    def places(self, split: Split) -> list[int]:
        return [place for place, own in enumerate(self.splits) if own == split]

    def held_out(self) -> EvaluationSet:
        # One set, so that a phrase of the source's template is met in several of its questions.
        rows = [(split, at) for split in HELD_OUT for at in self.places(split)]
        names = [f"{split} {self.ids[at]}" for split, at in rows]
        return EvaluationSet("held out", names, [self.questions[at] for _, at in rows])


def separate(
    checked: CheckedRows, settings: RowProblems, evaluation: Sequence[EvaluationSet]
) -> tuple[CheckedRows, dict[str, Any]]:
    """Quarantine the training rows that overlap an evaluation question or nearly repeat a question that stays.

    Evaluation questions are those of the evaluation sets (`read_evaluation_sets`) and of the source's own confirmation
    and selection rows, none of which is dropped. Of query–ad pairs the queries are compared, as whole texts: the same
    ads return on purpose. Also returns what was compared and found, for the receipt.

    Raises ValueError where no training row would be left.
    """
    texts = _read_texts(checked, settings)
    sets = [*evaluation, texts.held_out()]
    training = texts.places("train")
    pairs = settings.verifier == "label"
    found = find_overlaps([texts.questions[at] for at in training], sets, WHOLE if pairs else settings.overlap)
    _say_found(sets, found, len(training))
    overlaps: dict[int, Overlap] = {}
    for part in reversed(found):  # the first set is the one that is named
        overlaps |= {training[place]: overlap for place, overlap in part.overlaps.items()}
    dropped = {at: ("contaminated", f"{it.set}, {it.row}: {it.phrase}") for at, it in overlaps.items()}
    if settings.near_duplicates and not pairs:
        rest = [at for at in training if at not in dropped]
        dropped |= _near_duplicates(texts, rest, sets, settings.near_duplicates)
    report = {
        "overlap": None if pairs else settings.overlap,
        "near_duplicates": None if pairs else settings.near_duplicates,
        "sets": [
            {
                "name": evaluation.name,
                "sha256": evaluation.digest,
                "questions": len(evaluation.questions),
                "found": part.found,
                "found_share": part.found / max(1, len(evaluation.questions)),
                "training_rows": len(part.overlaps),
            }
            for evaluation, part in zip(sets, found, strict=True)
        ],
        "training_rows": len(training),
        "contaminated": len(overlaps),
        "near_duplicate": len(dropped) - len(overlaps),
    }
    if training and len(dropped) == len(training):
        raise ValueError(
            f"no training question would be left: of {len(training)}, {len(overlaps)} overlap evaluation questions "
            f"(problems.evaluation_sets, selection and confirmation; first: {_first(dropped)}); accepted: questions of "
            "their own. Questions from one template need a higher problems.overlap"
        )
    return _quarantine(checked, dropped), report


def read_evaluation_sets(settings: RowProblems, digests: Mapping[str, str]) -> list[EvaluationSet]:
    """The questions of the evaluation sets. ``digests``: of their files, by name.

    Raises ValueError for a set without a question in some row.
    """
    return [_read_set(file, digests[file.name]) for file in find_evaluation_files(settings)]


def _read_texts(checked: CheckedRows, settings: RowProblems) -> _Texts:
    questions = checked.kept["question"].to_list()
    ids = names = checked.kept["id"].to_list()
    if settings.verifier == "label":
        parsed = [Pair.parse(question) for question in questions]
        questions, names = [pair.query for pair in parsed], [pair.query_id for pair in parsed]
    return _Texts(ids, questions, assign_splits(names, settings.selection, settings.confirmation))


def _read_set(source: EvaluationFile, digest: str) -> EvaluationSet:
    rows, questions = [], []
    for row in read_rows(source.file):
        try:
            if row.reason:
                raise BadField(row.reason, row.detail)
            question = read_text(row.value, source.question)
            if not question:
                raise BadField("empty question", f"field {source.question} is blank")
        except BadField as bad:
            raise ValueError(
                f"problems.evaluation_sets: {source.file.name} row {row.number}: {bad.detail}; "
                "accepted: a question in every row, or FILE#FIELD to name its field"
            ) from None
        rows.append(f"row {row.number}")
        questions.append(question)
    if not questions:
        raise ValueError(f"problems.evaluation_sets: {source.file.name} has no row; accepted: a question in every row")
    return EvaluationSet(source.name, rows, questions, digest)


def _say_found(sets: Sequence[EvaluationSet], found: Sequence[SetOverlaps], training: int) -> None:
    for evaluation, part in zip(sets, found, strict=True):
        if part.overlaps:
            questions = len(evaluation.questions)
            _LOG.warning(
                "contamination: %d of the %d questions (%.0f %%) of %s are among the %d training rows; "
                "%d training rows go to quarantine",
                part.found, questions, 100 * part.found / questions, evaluation.name, training, len(part.overlaps),
            )  # fmt: skip


def _near_duplicates(
    texts: _Texts, training: Sequence[int], sets: Sequence[EvaluationSet], threshold: float
) -> dict[int, tuple[str, str]]:
    """Reason and detail of the training rows that nearly repeat an evaluation question or an earlier training row."""
    if not training:
        return {}
    names = [f"{evaluation.name}, {row}" for evaluation in sets for row in evaluation.rows]
    kept = len(names)
    names += [f"train, {texts.ids[at]}" for at in training]
    questions = [question for evaluation in sets for question in evaluation.questions]
    questions += [texts.questions[at] for at in training]
    return {
        training[place - kept]: ("near duplicate", f"{names[near.of]}: similarity {near.similarity:.2f}")
        for place, near in find_near_duplicates(questions, kept, threshold).items()
    }


def _first(dropped: Mapping[int, tuple[str, str]]) -> str:
    return dropped[min(dropped)][1]


def _quarantine(checked: CheckedRows, dropped: Mapping[int, tuple[str, str]]) -> CheckedRows:
    places = sorted(dropped)
    rows = checked.kept[places].with_columns(
        pl.Series("reason", [dropped[at][0] for at in places], dtype=pl.String),
        pl.Series("detail", [dropped[at][1] for at in places], dtype=pl.String),
        content=pl.struct("id", "question", "answer").struct.json_encode(),
    )
    stay = pl.Series([at not in dropped for at in range(checked.kept.height)], dtype=pl.Boolean)
    quarantine = pl.concat([checked.quarantine, rows.select(Quarantine.column_names())])
    return CheckedRows(checked.kept.filter(stay), quarantine, checked.read)
