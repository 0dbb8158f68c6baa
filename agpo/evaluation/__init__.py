"""Boundary evaluation: everything here is a pure function of counts (`records.Counts`)."""

from agpo.evaluation.bootstrap import curve_intervals, difference_intervals
from agpo.evaluation.card import report
from agpo.evaluation.figures import curve_figure, frontier_figure, training_figure
from agpo.evaluation.gate import Decision, decide
from agpo.evaluation.mixture import mixture_frontier
from agpo.evaluation.passk import pass_at_k, pass_curve
from agpo.evaluation.selection import Choice, choose_weight

__all__ = [
    "Choice",
    "Decision",
    "choose_weight",
    "curve_figure",
    "curve_intervals",
    "decide",
    "difference_intervals",
    "frontier_figure",
    "mixture_frontier",
    "pass_at_k",
    "pass_curve",
    "report",
    "training_figure",
]
