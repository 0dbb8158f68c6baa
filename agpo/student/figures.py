"""Pictures of a student: beside its baselines, by hard case, and how true its confidences are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agpo.figure_style import AXIS, BLUE, GREY, ORANGE, label_axes, new_figure
from agpo.student.calibration import FloatArray, Levels, bin_confidences, cool
from agpo.student.scores import StudentScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figures(scores: StudentScores, probabilities: FloatArray, gold: Levels, out: Path) -> None:
    """Write ``macro_f1.png``, ``reliability.png`` and, where hard cases are known, ``cases.png``.

    ``probabilities``: the student's, calibrated, of the confirmation pairs; ``gold``: their levels.
    """
    figures = {"macro_f1": models_figure(scores), "reliability": reliability_figure(scores, probabilities, gold)}
    if scores.models["student"].by_case:
        figures["cases"] = cases_figure(scores)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", metadata={"Software": None})  # no version in the bytes


def models_figure(scores: StudentScores) -> Figure:
    """Macro-F1 of the student and the baselines with 95 % intervals, the best at the top."""
    figure, (axes,) = new_figure("Macro-F1 on confirmation pairs, with 95 % intervals", 1)
    models = sorted(scores.models.items(), key=lambda item: item[1].macro_f1.value)
    values = [score.macro_f1.value for _, score in models]
    below = [score.macro_f1.value - score.macro_f1.lower for _, score in models]
    above = [score.macro_f1.upper - score.macro_f1.value for _, score in models]
    colours = [BLUE if name == "student" else GREY for name, _ in models]
    places = range(len(models))
    axes.barh(places, values, color=colours, alpha=0.75, height=0.6)
    axes.errorbar(values, places, xerr=(below, above), fmt="none", ecolor="#000000", capsize=3, linewidth=1)
    for place, (value, up) in enumerate(zip(values, above, strict=True)):
        axes.annotate(f"{value:.2f}", (value + up, place), (5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, [name.replace("_", " ") for name, _ in models])
    axes.set_xlim(0, 1.08)
    axes.grid(visible=False, axis="y")
    pairs = scores.models["student"]
    label_axes(axes, f"{pairs.pairs:,} pairs of {pairs.queries:,} queries", "macro-F1")
    return figure


def cases_figure(scores: StudentScores) -> Figure:
    """The student's accuracy by what makes a pair hard, and that of the best baseline."""
    best = max(scores.ahead, key=lambda name: scores.models[name].macro_f1.value)
    cases = sorted(scores.models["student"].by_case, key=scores.models["student"].by_case.__getitem__)
    figure, (axes,) = new_figure("Accuracy by hard case on confirmation pairs", 1)
    for name, colour, marker in ((best, GREY, "s"), ("student", BLUE, "o")):
        shares = [100 * scores.models[name].by_case[case] for case in cases]
        axes.plot(
            shares, range(len(cases)), color=colour, marker=marker, linestyle="none", label=name.replace("_", " ")
        )
    axes.set_yticks(range(len(cases)), [case.replace("_", " ") for case in cases])
    axes.set_xlim(0, 102)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    label_axes(axes, "", "accuracy, %")
    return figure


def reliability_figure(scores: StudentScores, probabilities: FloatArray, gold: Levels) -> Figure:
    """Accuracy over confidence in bins, before and after calibration; the area of a mark is its share of the pairs."""
    figure, (axes,) = new_figure("Reliability on confirmation pairs", 1)
    axes.plot([0, 1], [0, 1], color=AXIS, linewidth=1, linestyle="--", label="confidence = accuracy")
    before = cool(probabilities, 1 / scores.temperature)
    for name, found, ece, colour in (
        ("temperature 1", before, scores.uncalibrated.ece, ORANGE),
        (f"temperature {scores.temperature:.2f}", probabilities, scores.calibration.ece, BLUE),
    ):
        _, confidence, accuracy, share = bin_confidences(found, gold)
        label = f"{name}: ECE {ece:.3f}"
        axes.scatter(confidence, accuracy, s=12 + 400 * share, color=colour, alpha=0.7, linewidth=0, label=label)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    label_axes(axes, "", "confidence")
    return figure
