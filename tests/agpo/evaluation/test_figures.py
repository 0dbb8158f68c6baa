"""Figures: they render, and show every set, policy, weight and metric."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D

from agpo.evaluation.figures import curve_figure, frontier_figure, training_figure
from agpo.evaluation.selection import choose_weight
from tests.agpo.evaluation.simulation import draw_rates, make_counts, sample_counts, shift_rates

KS = [1, 2, 4, 8]


@pytest.fixture(scope="module")
def base() -> pl.DataFrame:
    return sample_counts({"easy_set": RATES, "hard": RATES / 4}, 16, np.random.default_rng(1))


RATES = draw_rates(40, np.random.default_rng(0))


@pytest.fixture(scope="module")
def by_weight() -> dict[float, pl.DataFrame]:
    random = np.random.default_rng(2)
    return {
        weight: sample_counts(
            {"easy_set": shift_rates(RATES, weight, 0.1, random), "hard": shift_rates(RATES / 4, weight, 0.1, random)},
            16,
            random,
        )
        for weight in (0.35, 0.7, 1.0)
    }


def texts(figure: Figure) -> list[str]:
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def along_x(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def along_y(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def assert_draws(figure: Figure) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=50)
    picture.seek(0)
    pixels = imread(picture)[..., :3]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert (pixels < 0.9).any(axis=2).mean() > 0.01


def test_curves_show_every_policy_on_every_set(base: pl.DataFrame, by_weight: dict[float, pl.DataFrame]) -> None:
    figure = curve_figure({"base": base, "trained": by_weight[1.0], "candidate": by_weight[0.35]}, KS)
    assert [axes.get_title("left") for axes in figure.axes] == ["easy set (40 problems)", "hard (40 problems)"]
    assert texts(figure) == ["base", "trained", "candidate"]
    for axes in figure.axes:
        lines = axes.get_lines()
        assert [along_x(line) for line in lines] == [KS] * 3
        assert len({line.get_color() for line in lines}) == 3
        assert len(axes.collections) == 3  # bands
        assert axes.get_xscale() == "log"
    assert_draws(figure)


def test_frontier_marks_every_weight_the_base_the_choice_and_the_margin(
    base: pl.DataFrame, by_weight: dict[float, pl.DataFrame]
) -> None:
    choice = choose_weight(base, by_weight, 8, 0.02)
    figure = frontier_figure(base, by_weight, 8, choice)
    assert [axes.get_title("left") for axes in figure.axes] == ["easy set (40 problems)", "hard (40 problems)"]
    for row, axes in enumerate(figure.axes):
        assert [text.get_text() for text in axes.texts] == ["0.35", "0.7", "1"]
        lines = {line.get_label(): line for line in axes.get_lines()}
        evidence = next(entry for entry in choice.evidence if entry.weight == choice.weight).sets[row]
        star = lines[f"chosen: w = {choice.weight:g}"]
        assert (along_x(star)[0], along_y(star)[0]) == pytest.approx(
            (100 * evidence.pass_at_1, 100 * evidence.pass_at_k)
        )
        assert along_y(lines["base"])[0] == pytest.approx(100 * evidence.base_pass_at_k)
        margin = along_y(lines["margin, 2 points below the base"])[0]
        assert margin == pytest.approx(100 * evidence.base_pass_at_k - 2)
        assert len(along_x(lines["k samples mixed from base and w = 1"])) == 9
    assert_draws(figure)


def test_frontier_says_when_no_weight_keeps_the_margin() -> None:
    base, lost = make_counts(["a"] * 3, [8] * 3, [4] * 3), make_counts(["a"] * 3, [8] * 3, [0] * 3)
    figure = frontier_figure(base, {1.0: lost}, 4, choose_weight(base, {1.0: lost}, 4, 0.02))
    assert "chosen: w = 1, no weight keeps the margin" in texts(figure)


def test_training_shows_every_metric_with_gaps() -> None:
    steps = np.arange(60)
    metrics = pl.DataFrame(
        {
            "step": steps,
            "rollout/reward_mean": [None if step == 7 else step / 60 for step in steps],
            "rollout/all_wrong_share": 0.4 - steps / 200,
            "rollout/mixed_share": 0.5,
            "rollout/all_correct_share": 0.1 + steps / 200,
            "policy/entropy": 0.4 - steps / 300,
            "policy/mass_positive": 0.3,
            "policy/mass_negative": 0.6 - steps / 200,
        }
    )
    figure = training_figure(metrics)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["Mean reward", "Groups by outcome", "Policy entropy, nats per token", "Gradient mass"]
    assert texts(figure) == ["all wrong", "mixed", "all correct", "correct answers, $m_S$", "wrong answers, $m_F$"]
    assert len(along_x(figure.axes[0].get_lines()[0])) == 59
    assert_draws(figure)


def test_training_leaves_absent_metrics_out() -> None:
    figure = training_figure(pl.DataFrame({"step": [0, 1], "policy/entropy": [0.4, 0.3]}))
    assert [axes.get_title("left") for axes in figure.axes] == ["Policy entropy, nats per token"]
    with pytest.raises(ValueError, match="accepted are rollout/reward_mean"):
        training_figure(pl.DataFrame({"step": [0, 1], "loss": [0.4, 0.3]}))
