"""The stage: folders in, decision and card out; the champion is scored on today's pairs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from agpo.artifacts import Files
from agpo.artifacts.table import write_table
from agpo.problems.pair import Pair
from agpo.records import Pairs, Predictions
from agpo.relevance import Labelled, find_scheme, score_labels
from agpo.settings import StudentJudging
from agpo.stages import Work
from agpo.student.calibration import Calibration
from agpo.student.gate import StudentDecision
from agpo.student.judge import judge
from agpo.student.scorer import Scorer
from agpo.student.scores import Export, StudentScores
from tests.agpo.student.tiny_student import make_values, write_student

SCHEME = find_scheme("esci4")
LETTERS = [label.letter for label in SCHEME]
TRUTH = make_values(SCHEME, seed=1)
SETTINGS = StudentJudging(resamples=300)


@pytest.fixture
def perfect(tmp_path: Path) -> Path:
    """A student's folder whose labels are the gold."""
    return write_student(tmp_path / "perfect", TRUTH)


@pytest.fixture
def pairs(perfect: Path) -> pl.DataFrame:
    """Judged pairs of 60 queries, by what the perfect student says of them."""
    words = ("red", "blue", "shoe", "lamp", "case", "for")
    queries = [" ".join(found) for found in product(words, repeat=3)][::3][:60]
    titles = ["red lamp", "blue shoe", "case for lamp", "shoe"]
    texts = [Pair(query, title, "for: red" if title == "shoe" else "") for query in queries for title in titles]
    levels = Scorer(perfect).score(*zip(*texts, strict=True)).argmax(1)
    rows = [
        {
            **pair._asdict(),
            "id": pair.id,
            "query_id": pair.query_id,
            "prompt": pair.render(),
            "gold": f"esci4:{LETTERS[level]}",
            "split": "confirmation",
            "case": "accessory" if "for" in pair.title else None,
        }
        for pair, level in zip(texts, levels, strict=True)
    ]
    other = {**rows[0], "id": "p-train", "split": "train"}
    return Pairs.cast(pl.DataFrame([other, *rows]).select(Pairs.column_names()))


@pytest.fixture
def work(tmp_path: Path, pairs: pl.DataFrame) -> Callable[..., Work]:
    """Work on a student with a share of wrong labels, beside a majority baseline and, if wanted, a champion."""

    def make(wrong: float, champion: Path | None = None, rows: pl.DataFrame | None = None) -> Work:
        problems, student, out = (tmp_path / name for name in ("problems", "student", "out"))
        write_table(problems, "pairs.parquet", pairs, Pairs)
        confirmation = pairs.filter(pl.col("split") == "confirmation")
        write_measured(write_student(student, TRUTH), confirmation if rows is None else rows, wrong)
        out.mkdir(exist_ok=True)
        inputs = {"student": student, "problems": problems} | ({} if champion is None else {"champion": champion})
        keys = {name: f"key of {name}" for name in inputs}
        return Work(inputs=inputs, keys=keys, out=out, partial=Files(tmp_path / "partial"), seed=0, device="cpu")

    return make


def write_measured(folder: Path, pairs: pl.DataFrame, wrong: float) -> None:
    """The student's predictions, of which the first share is wrong, in an order of their own."""
    gold = [LETTERS.index(gold[-1]) for gold in pairs["gold"]]
    random = np.random.default_rng(0)
    chosen = [(level + 1) % 4 if random.random() < wrong else level for level in gold]
    tables = {"student": np.eye(4)[chosen] * 0.6 + 0.1, "majority": np.tile([0.1, 0.2, 0.3, 0.4], (len(gold), 1))}
    labelled = {}
    frames = []
    for name, shares in tables.items():
        letters = [LETTERS[level] for level in shares.argmax(1)]
        labelled[name] = Labelled(SCHEME, [LETTERS[level] for level in gold], letters, pairs["query_id"].to_list())
        frames.append(
            pairs.select(
                pl.lit(name).alias("model"),
                pl.col("id").alias("pair_id"),
                "query_id",
                "case",
                pl.col("gold").str.slice(-1),
                pl.Series("label", letters),
                pl.Series("probabilities", shares.tolist()),
            ).reverse()
        )
    write_table(folder, "predictions.parquet", Predictions.cast(pl.concat(frames)), Predictions)
    calibration = Calibration(ece=0.021, brier=0.4, aurc=0.1)
    scores = StudentScores(
        encoder="aligned",
        parameters=140_000,
        labelled_pairs=6_000,
        gold_pairs=2_000,
        choice={"aligned": 0.9},
        models={name: score_labels(found, pairs["case"].to_list()) for name, found in labelled.items()},
        ahead={},
        temperature=1.25,
        calibration=calibration,
        uncalibrated=calibration.model_copy(update={"ece": 0.087}),
        export=Export(largest_difference=1e-6, int8_kept=True, int8_agreement=1.0, int8_drop=0.0, bytes=450_000),
    )
    (folder / "scores.json").write_text(scores.model_dump_json())


def read_decision(work: Work) -> StudentDecision:
    return StudentDecision.model_validate_json((work.out / "decision.json").read_text())


def test_a_first_student_that_beats_the_baseline_is_promoted(work: Callable[..., Work]) -> None:
    made = work(wrong=0.1)
    done = judge(SETTINGS, made)
    decision = read_decision(made)
    assert (done["rows"], done["outcome"], decision.outcome) == (240, "promote", "promote")
    assert decision.reference == "majority"
    assert done["metrics"]["student/ahead_lower"] == decision.macro_f1.lower > 0
    assert done["metrics"]["student/majority/macro_f1"] == decision.scores["majority"].macro_f1.value
    assert decision.scores["student"].pairs == 240


def test_the_champion_is_scored_on_todays_pairs(work: Callable[..., Work], perfect: Path, tmp_path: Path) -> None:
    lost = work(wrong=0.2, champion=perfect)
    assert judge(SETTINGS, lost)["outcome"] == "reject"
    assert read_decision(lost).scores["champion"].accuracy.value == 1.0
    won = work(wrong=0.2, champion=write_student(tmp_path / "weak", make_values(SCHEME, seed=2)))
    assert judge(SETTINGS, won)["outcome"] == "promote"
    assert [entry.case for entry in read_decision(won).cases] == ["accessory"]
    same = work(wrong=0.0, champion=perfect)
    assert judge(SETTINGS, same)["outcome"] == "inconclusive"


def test_the_card_has_decision_figures_and_origin(work: Callable[..., Work], perfect: Path) -> None:
    made = work(wrong=0.2, champion=perfect)
    judge(SETTINGS, made)
    card = (made.out / "card.md").read_text()
    decision = read_decision(made)
    assert card.startswith(
        "**Reject: the student lost quality or a hard case against the champion.**\n\n- macro-F1 below"
    )
    assert all(reason in card for reason in decision.reasons)
    value = decision.scores["student"].macro_f1
    assert f"| student | {100 * value.value:.1f} [{100 * value.lower:.1f}, {100 * value.upper:.1f}] |" in card
    for part in (
        "| champion | 100.0 [100.0, 100.0] |",
        "| majority |",
        "| accuracy, accessory (60 pairs) | 100.0 |",
        "| temperature 1 | 0.087 |",
        "| temperature 1.25, as served | 0.021 |",
        "| pairs labelled by a teacher's votes | 6,000 |",
        "| encoder | aligned, 140,000 parameters |",
        "| graph | ONNX, 8-bit weights, 0.45 MB |",
        "| artifact champion | `key of champion` |",
        "I irrelevant, C complement, S substitute, E exact (esci4)",
    ):
        assert part in card


def test_it_writes_the_same_bytes_again(work: Callable[..., Work], perfect: Path) -> None:
    written = []
    for _ in range(2):
        made = work(wrong=0.3, champion=perfect)
        judge(SETTINGS, made)
        written.append({file.name: file.read_bytes() for file in made.out.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"decision.json", "card.md"}


def test_predictions_of_other_pairs_are_refused(work: Callable[..., Work], pairs: pl.DataFrame) -> None:
    rows = pairs.filter(pl.col("split") == "confirmation").slice(3)
    message = (
        r"measured on other pairs than the problems' confirmation split: 0 of its 237 pairs are not in the split, 3 of "
        r"the split's 240 pairs are missing"
    )
    with pytest.raises(ValueError, match=message):
        judge(SETTINGS, work(wrong=0.1, rows=rows))


def test_a_champion_of_another_scheme_is_refused(work: Callable[..., Work], tmp_path: Path) -> None:
    scheme = find_scheme("binary")
    champion = write_student(tmp_path / "binary", make_values(scheme), scheme="binary")
    with pytest.raises(ValueError, match=r"the champion's labels are of scheme binary, the student's of esci4"):
        judge(SETTINGS, work(wrong=0.1, champion=champion))


@pytest.mark.parametrize("margin", [0, 0.6])
def test_a_margin_out_of_range_is_refused(margin: Any) -> None:
    with pytest.raises(ValueError, match="margin"):
        StudentJudging(margin=margin)
