"""Figures that are functions of counts and metrics: pass@k curves, the frontier of weights, the course of training.

They use matplotlib's object API, so there is no global state and any thread can draw them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from agpo.evaluation.bootstrap import curve_intervals
from agpo.evaluation.mixture import mixture_frontier
from agpo.evaluation.passk import FloatArray
from agpo.evaluation.selection import Choice
from agpo.figure_style import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, YELLOW, label_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVES = tuple(zip((GREY, BLUE, ORANGE, GREEN, PINK, YELLOW, SKY), "osD^vPX", strict=True))

_TRAINING_PANELS: dict[str, dict[str, tuple[str, str]]] = {  # title → metric → label, colour
    "Mean reward": {"rollout/reward_mean": ("reward", BLUE)},
    "Groups by outcome": {
        "rollout/all_wrong_share": ("all wrong", ORANGE),
        "rollout/mixed_share": ("mixed", SKY),
        "rollout/all_correct_share": ("all correct", GREEN),
    },
    "Policy entropy, nats per token": {"policy/entropy": ("entropy", BLUE)},
    "Gradient mass": {
        "policy/mass_positive": ("correct answers, $m_S$", BLUE),
        "policy/mass_negative": ("wrong answers, $m_F$", ORANGE),
    },
}


def curve_figure(curves: Mapping[str, pl.DataFrame], ks: Sequence[int], seed: int = 0) -> Figure:
    """pass@k over k with 95 % bands: one panel a set, one line a policy.

    Args:
        curves: `records.Counts` by the name of the policy, the base first.
    """
    intervals = {name: curve_intervals(counts, ks, seed=seed) for name, counts in curves.items()}
    sets = next(iter(intervals.values()))["set"].unique(maintain_order=True).to_list()
    figure, panels = new_figure("Reasoning boundary: pass@k with 95 % intervals", len(sets))
    for axes, set_name in zip(panels, sets, strict=True):
        for index, (name, frame) in enumerate(intervals.items()):
            rows = frame.filter(pl.col("set") == set_name)
            colour, marker = _CURVES[index % len(_CURVES)]
            k, middle, lower, upper = (rows[column].to_numpy() for column in ("k", "pass_at_k", "lower", "upper"))
            axes.fill_between(k, 100 * lower, 100 * upper, color=colour, alpha=0.15, linewidth=0)
            # Earlier lines are broader, so that curves which coincide all stay visible.
            broad = len(intervals) - index
            width, size = 1.3 + 0.4 * broad, 3.5 + broad
            axes.plot(k, 100 * middle, color=colour, linewidth=width, marker=marker, markersize=size, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(ks), [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_ylim(0, 102)
        label_axes(axes, f"{set_name} ({rows['problems'][0]:,} problems)", "k, samples per problem")
    panels[0].set_ylabel("pass@k, %")
    _add_legend(figure, panels[0])
    return figure


def frontier_figure(
    base: pl.DataFrame, by_weight: Mapping[float, pl.DataFrame], k: int, chosen: Choice, seed: int = 0
) -> Figure:
    """pass@1 against pass@k of every weight with 95 % whiskers: one panel a set.

    Marks the base, the chosen weight and the margin below the base. The dashed line mixes samples of the base and of
    the largest weight (`mixture_frontier`): interpolation is worth something where it lies above that line.
    """
    weights = sorted(by_weight)
    intervals = [curve_intervals(counts, (1, k), seed=seed) for counts in (base, *(by_weight[w] for w in weights))]
    mixture = mixture_frontier(base, by_weight[weights[-1]], k)
    sets = intervals[0]["set"].unique(maintain_order=True).to_list()
    figure, panels = new_figure(
        f"From the base to the trained policy: pass@1 against pass@{k}", len(sets), shared_y=False
    )
    for axes, set_name in zip(panels, sets, strict=True):
        rows = [frame.filter(pl.col("set") == set_name) for frame in intervals]
        points = 100 * np.stack([row.select("pass_at_k", "lower", "upper").to_numpy() for row in rows])
        _draw_weights(axes, points, weights, chosen)
        mixed = mixture.filter(pl.col("set") == set_name)
        axes.plot(
            100 * mixed["pass_at_1"].to_numpy(),
            100 * mixed["pass_at_k"].to_numpy(),
            color=PINK,
            linestyle="--",
            label=f"k samples mixed from base and w = {weights[-1]:g}",
            zorder=1,
        )
        label_axes(axes, f"{set_name} ({rows[0]['problems'][0]:,} problems)", "pass@1, %")
    panels[0].set_ylabel(f"pass@{k}, %")
    _add_legend(figure, panels[0])
    return figure


def training_figure(metrics: pl.DataFrame) -> Figure:
    """Reward, group shares, entropy and gradient masses over steps; absent metrics and empty panels are left out.

    Args:
        metrics: column ``step`` and metric columns (``rollout/reward_mean``, ``policy/entropy``, …), nulls allowed.

    Raises:
        ValueError: none of the metrics is there.
    """
    present = {
        title: {metric: style for metric, style in lines.items() if metric in metrics.columns}
        for title, lines in _TRAINING_PANELS.items()
    }
    present = {title: lines for title, lines in present.items() if lines}
    if not present:
        accepted = ", ".join(metric for lines in _TRAINING_PANELS.values() for metric in lines)
        raise ValueError(f"none of the columns {metrics.columns} is a training metric; accepted are {accepted}")
    figure, panels = new_figure("Training", len(present), columns=2, shared_y=False)
    window = max(1, len(metrics) // 25)
    for axes, (title, lines) in zip(panels, present.items(), strict=True):
        for metric, (label, colour) in lines.items():
            series = metrics.select("step", metric).drop_nulls().sort("step")
            smooth = series[metric].rolling_mean(window, min_samples=1, center=True)
            axes.plot(series["step"].to_numpy(), series[metric].to_numpy(), color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(series["step"].to_numpy(), smooth.to_numpy(), color=colour, label=label)
        label_axes(axes, title, "step")
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_weights(axes: Axes, points: FloatArray, weights: Sequence[float], chosen: Choice) -> None:
    """``points``: [base and weights, pass@1 and pass@k, middle lower upper] in percent."""
    from matplotlib.patheffects import Normal, Stroke

    (x, left, right), (y, low, high) = points.transpose(1, 2, 0)
    across, up = np.stack([x - left, right - x]), np.stack([y - low, high - y])
    axes.errorbar(x, y, xerr=across, yerr=up, fmt="none", ecolor=BLUE, alpha=0.3, linewidth=1.2)
    axes.plot(x[0], y[0], color=GREY, marker="s", markersize=10, linestyle="none", label="base", zorder=3)
    axes.plot(x, y, color=BLUE, marker="o", label="interpolated by weight w")
    star = 1 + list(weights).index(chosen.weight)
    axes.plot(
        x[star],
        y[star],
        color=YELLOW,
        marker="*",
        markersize=19,
        markeredgecolor=INK,
        linestyle="none",
        label=f"chosen: w = {chosen.weight:g}" + ("" if chosen.kept else ", no weight keeps the margin"),
        zorder=4,
    )
    for weight, *place in zip(weights, x[1:], y[1:], strict=True):
        axes.annotate(
            f"{weight:g}",
            (place[0], place[1]),
            (8, 8),
            textcoords="offset points",
            fontsize=9,
            color=INK,
            path_effects=[Stroke(linewidth=2, foreground="white"), Normal()],
        )
    axes.axhline(
        y[0] - 100 * chosen.margin,
        color=ORANGE,
        linewidth=1.2,
        linestyle=":",
        label=f"margin, {100 * chosen.margin:g} points below the base",
    )


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(3, len(labels)),
        frameon=False,
        fontsize=9,
        markerscale=0.8,
    )
