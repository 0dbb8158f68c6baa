"""What the pictures show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agpo.relevance import Interval, Labelled, find_scheme, score_labels
from agpo.student.calibration import Calibration, cool
from agpo.student.figures import cases_figure, draw_figures, models_figure, reliability_figure
from agpo.student.scores import Export, StudentScores

SCHEME = find_scheme("binary")
GOLD = np.arange(60) % 2
PROBABILITIES = np.where(np.eye(2)[GOLD] == 1, 0.9, 0.1)


def make_scores(cases: list[str | None]) -> StudentScores:
    models = {}
    for name, wrong in (("student", 6), ("tfidf", 30), ("gold_only", 15)):
        labels = [level if at >= wrong else 1 - level for at, level in enumerate(GOLD)]
        queries = [str(at // 3) for at in range(60)]
        labelled = Labelled(SCHEME, ["IR"[level] for level in GOLD], ["IR"[level] for level in labels], queries)
        models[name] = score_labels(labelled, cases)
    ahead = Interval(value=0.2, lower=0.1, upper=0.3)
    return StudentScores(
        encoder="aligned",
        parameters=100,
        labelled_pairs=10,
        gold_pairs=20,
        choice={"aligned": 0.9},
        models=models,
        ahead={"tfidf": ahead, "gold_only": ahead},
        temperature=2.0,
        calibration=Calibration(ece=0.01, brier=0.1, aurc=0.1),
        uncalibrated=Calibration(ece=0.2, brier=0.1, aurc=0.1),
        export=Export(largest_difference=0, int8_kept=True, int8_agreement=1, int8_drop=0, bytes=10),
    )


SCORES = make_scores(["typo", "unit"] * 30)


def test_bars_are_the_models_from_worst_to_best() -> None:
    (axes,) = models_figure(SCORES).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["tfidf", "gold only", "student"]
    values = [SCORES.models[name].macro_f1.value for name in ("tfidf", "gold_only", "student")]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(values)


def test_cases_show_the_student_beside_the_best_other_model() -> None:
    (axes,) = cases_figure(SCORES).axes
    shown = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert set(shown) == {"student", "gold only"}
    assert sorted(shown["student"]) == pytest.approx(
        sorted(100 * share for share in SCORES.models["student"].by_case.values())
    )


def test_reliability_shows_both_temperatures() -> None:
    (axes,) = reliability_figure(SCORES, PROBABILITIES, GOLD).axes
    before, after = axes.collections
    sharp = cool(PROBABILITIES, 0.5)
    np.testing.assert_allclose(before.get_offsets(), [[sharp.max(), 1.0]])
    np.testing.assert_allclose(after.get_offsets(), [[0.9, 1.0]])
    assert after.get_label() == "temperature 2.00: ECE 0.010"


def test_pictures_are_the_same_bytes_and_cases_need_cases(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        draw_figures(SCORES, PROBABILITIES, GOLD, tmp_path / name)
    names = ["cases.png", "macro_f1.png", "reliability.png"]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == names
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in names)
    with Image.open(tmp_path / "first" / "cases.png") as picture:
        assert picture.size[0] > 400
    (tmp_path / "none").mkdir()
    draw_figures(make_scores([None] * 60), PROBABILITIES, GOLD, tmp_path / "none")
    assert not (tmp_path / "none" / "cases.png").exists()
