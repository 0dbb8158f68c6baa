"""The figure of a labelling: how far the votes agree, and how far they are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from agpo.figure_style import AXIS, BLUE, GREEN, INK, ORANGE, SKY, YELLOW, label_axes, new_figure
from agpo.relevance.scheme import Scheme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_VOTES = "votes for the label"
_COLOURS = (ORANGE, YELLOW, SKY, BLUE, GREEN)  # from irrelevant to relevant


def agreement_figure(levels: pl.DataFrame, scheme: Scheme) -> Figure:
    """Pairs by the number of votes for their label, and beside it, where gold is known, how many of them are right.

    Args:
        levels: a row for each number of ``votes`` and ``label`` (null: no answer voted): ``pairs``, those that are
            ``judged``, the ``right`` ones of these, and ``answers``, how many a pair has.
    """
    judged = int(levels["judged"].sum())
    pairs = int(levels["pairs"].sum())
    answers = int(levels["answers"].max())  # type: ignore[arg-type]
    figure, axes = new_figure(f"Labels by {answers} votes a pair", 2 if judged else 1, shared_y=False)
    _draw_shares(axes[0], levels, scheme, pairs)
    if judged:
        _draw_accuracy(axes[1], levels, answers, judged)
    for each in axes:
        each.set_xlim(-0.6, answers + 0.6)
        each.set_xticks(range(0, answers + 1, -(-answers // 16)))
        each.grid(visible=False, axis="x")
        each.legend(frameon=False, fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


def _draw_shares(axes: Axes, levels: pl.DataFrame, scheme: Scheme, pairs: int) -> None:
    below: dict[int, float] = {}
    graded = zip(scheme, _COLOURS, strict=False)
    names = [(label.letter, f"{label.letter} ({label.name})", colour) for label, colour in graded]
    for letter, name, colour in (*reversed(names), (None, "none", AXIS)):
        rows = levels.filter(pl.col("label").eq_missing(pl.lit(letter, dtype=pl.String)))
        shares = {votes: 100 * count / pairs for votes, count in rows.select("votes", "pairs").iter_rows()}
        if shares:
            axes.bar(
                [*shares], [*shares.values()], bottom=[below.get(v, 0.0) for v in shares], color=colour, label=name
            )
            below |= {votes: below.get(votes, 0.0) + share for votes, share in shares.items()}
    label_axes(axes, f"Agreement ({pairs:,} pairs)", _VOTES)
    axes.set_ylabel("share of the pairs, %", color=INK)


def _draw_accuracy(axes: Axes, levels: pl.DataFrame, answers: int, judged: int) -> None:
    rows = levels.group_by("votes").agg(pl.col("judged", "right").sum()).filter(pl.col("judged") > 0).sort("votes")
    votes, counts = rows["votes"].to_list(), rows["judged"].to_list()
    accuracy = [100 * right / count for right, count in rows.select("right", "judged").iter_rows()]
    axes.plot([0, answers], [0, 100], color=AXIS, linestyle="--", linewidth=1.2, label="right as often as agreed")
    axes.plot(votes, accuracy, color=_COLOURS[3], linewidth=1.3, marker="o", markersize=5, label="right")
    for place, height, count in zip(votes, accuracy, counts, strict=True):
        axes.annotate(
            f"{count:,}", (place, height), (0, 7), textcoords="offset points", ha="center", fontsize=8, color=INK
        )
    axes.set_ylim(0, 109)
    label_axes(axes, f"Accuracy against gold ({judged:,} judged pairs)", _VOTES)
    axes.set_ylabel("right labels, %", color=INK)
