from __future__ import annotations

import polars as pl
import pytest

from agpo.relevance import find_scheme
from agpo.relevance.figures import agreement_figure

ESCI = find_scheme("esci4")
LEVELS = pl.DataFrame(
    [("E", 4, 6, 2, 2, 4), ("I", 4, 2, 0, 0, 4), ("S", 2, 1, 1, 0, 4), (None, 0, 1, 1, 0, 4)],
    schema=["label", "votes", "pairs", "judged", "right", "answers"],
    orient="row",
)


def test_bars_stack_to_all_pairs_and_points_are_accuracies() -> None:
    shares, accuracy = agreement_figure(LEVELS, ESCI).axes
    assert sum(bar.get_height() for bar in shares.patches) == pytest.approx(100)
    tops = [bar.get_y() + bar.get_height() for bar in shares.patches if bar.get_x() + bar.get_width() / 2 == 4]
    assert max(tops) == pytest.approx(80)
    assert [text.get_text() for text in shares.get_legend().get_texts()] == [
        "E (exact)",
        "S (substitute)",
        "I (irrelevant)",
        "none",
    ]
    points = accuracy.lines[1]
    assert list(points.get_xdata()) == [0, 2, 4]
    assert list(points.get_ydata()) == [0, 0, 100]


def test_without_gold_there_is_one_panel() -> None:
    figure = agreement_figure(LEVELS.with_columns(judged=pl.lit(0), right=pl.lit(0)), ESCI)
    assert len(figure.axes) == 1
