"""Draws the advantages of every method over the success rate of a group: ``python -m agpo.objectives FILE.png``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from agpo.objectives import OBJECTIVES, AdvantageEstimator, Agpo, Grpo, StepContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 16
COLUMNS = 4
_GREY, _BLUE, _ORANGE = "#8c8c8c", "#0072b2", "#d55e00"  # Okabe and Ito's, distinct under colour blindness


def advantage_curves(estimator: AdvantageEstimator, samples: int = SAMPLES) -> tuple[list[float], list[float]]:
    """A⁺ of groups with 1…G right rollouts and A⁻ of groups with 0…G−1, all of them in one step with equal lengths."""
    right = torch.arange(samples + 1)
    correct = torch.arange(samples)[None] < right[:, None]  # [groups, samples]
    groups = right[:, None].expand_as(correct).flatten()
    context = StepContext(step=0, lengths=torch.ones(groups.shape, dtype=torch.long))
    rewards = correct.flatten().double() * 2 - 1
    found = estimator.advantages(rewards, groups, correct.flatten(), context).reshape(correct.shape)
    return found[1:, 0].tolist(), found[:-1, -1].tolist()


def draw_curves(estimators: Mapping[str, AdvantageEstimator], samples: int = SAMPLES) -> Figure:
    """One panel a method, by its title, with GRPO's curves behind it."""
    from matplotlib.figure import Figure

    rows = -(-len(estimators) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.1 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
    rates = [count / samples for count in range(samples + 1)]
    behind = advantage_curves(Grpo(), samples)
    for axes, (title, estimator) in zip(panels, estimators.items(), strict=False):
        positive, negative = advantage_curves(estimator, samples)
        for values, places in zip(behind, (rates[1:], rates[:-1]), strict=True):
            axes.plot(places, values, color=_GREY, linewidth=1, linestyle="--", label="GRPO")
        axes.plot(rates[1:], positive, color=_BLUE, linewidth=1.8, label="right answers")
        axes.plot(rates[:-1], negative, color=_ORANGE, linewidth=1.8, label="wrong answers")
        axes.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
        axes.set_title(title, fontsize=9)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([-4, -2, 0, 2, 4])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(estimators) :]:
        axes.set_axis_off()
    lines = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), frameon=False, fontsize=9)
    figure.supxlabel(f"success rate of the group ({samples} rollouts)", fontsize=9)
    figure.supylabel("advantage", fontsize=9)
    return figure


def all_methods() -> dict[str, AdvantageEstimator]:
    """AGPO with the options that change its shape, then every other kind with its defaults."""
    variants = {
        "agpo": Agpo(),
        "agpo: δ .25, R −.5, masked": Agpo(delta=0.25, negative=-0.5, all_wrong="mask"),
        "agpo: δ .25, R −.2, focus 4": Agpo(delta=0.25, negative=-0.2, all_wrong="mask", focus=4),
        "agpo: scaled to GRPO": Agpo(scale_to_grpo=True),
    }
    others = {kind: kind_class.model_validate({}) for kind, kind_class in OBJECTIVES.items() if kind != "agpo"}
    return {**variants, **others}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m agpo.objectives FILE.png")
    draw_curves(all_methods()).savefig(sys.argv[1], dpi=110)
