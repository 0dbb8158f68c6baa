"""A student's model card in Markdown: the gate's decision, how good the student is, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping

from agpo.evaluation.card import format_table
from agpo.evaluation.comparison import points
from agpo.relevance import Interval, LabelScores, Scheme
from agpo.student.gate import StudentDecision
from agpo.student.scores import StudentScores

_HEADLINES = {
    "promote": "Promote: the student is better than {reference}.",
    "reject": "Reject: the student lost quality or a hard case against {reference}.",
    "inconclusive": "Inconclusive: the evidence does not decide; the champion stays, if there is one.",
}


def report(decision: StudentDecision, scores: StudentScores, scheme: Scheme, keys: Mapping[str, str]) -> str:
    """Markdown; ``keys`` of the artifacts that were judged: student, problems and, where there is one, champion."""
    reference = "the champion" if decision.reference == "champion" else f"the baseline {decision.reference}"
    models = {**scores.models, **decision.scores}  # with the gate's own resamples where it has any
    sections = [
        f"**{_HEADLINES[decision.outcome].format(reference=reference)}**",
        "\n".join(f"- {reason}" for reason in decision.reasons),
        f"### Student against {reference}",
        _differences(decision),
        _describe_method(decision),
        "\n".join(f"- {note}" for note in decision.notes),
        "### Student beside champion and baselines",
        _figures(models, scheme),
        "### By hard case" if models["student"].by_case else "",
        _cases(models),
        "### Calibration",
        _calibration(scores),
        "### What it was made from",
        _origin(scores, scheme, keys),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _differences(decision: StudentDecision) -> str:
    macro_f1 = {name: scores.macro_f1.value for name, scores in decision.scores.items()}
    change = decision.macro_f1
    rows = [
        (
            "macro-F1",
            _percent(macro_f1[decision.reference]),
            _percent(macro_f1["student"]),
            f"**{points(change.value)}**",
            points(change.lower),
            points(change.upper),
        )
    ]
    rows += [
        (
            f"accuracy, {entry.case} ({entry.pairs:,} pairs)",
            _percent(entry.reference),
            _percent(entry.student),
            f"**{points(entry.student - entry.reference)}**",
            "" if entry.lower is None else points(entry.lower),
            "" if entry.upper is None else points(entry.upper),
        )
        for entry in decision.cases
    ]
    return format_table(
        ("figure", f"{decision.reference}, %", "student, %", "difference, points", "lower", "upper"), rows
    )


def _describe_method(decision: StudentDecision) -> str:
    student = decision.scores["student"]
    cases = (
        f" Bounds of the cases are one-sided {100 * decision.confidence:g} % bounds that hold for all cases together "
        f"(max-t); margin: {points(-decision.margin)} points."
    )
    return (
        f"{student.pairs:,} confirmation pairs of {student.queries:,} queries; {decision.resamples:,} paired resamples "
        f"of queries, seed {decision.seed}. Macro-F1 has its 95 % interval.{cases if decision.cases else ''}"
    )


def _figures(models: Mapping[str, LabelScores], scheme: Scheme) -> str:
    letters = [label.letter for label in scheme]
    rows = [
        (
            name,
            _interval(found.macro_f1),
            _interval(found.accuracy),
            *(_percent(found.f1[letter]) for letter in letters),
            "" if found.over_graded is None else _percent(found.over_graded),
        )
        for name, found in sorted(models.items(), key=lambda item: -item[1].macro_f1.value)
    ]
    header = ("model", "macro-F1, %", "accuracy, %", *(f"F1 {letter}, %" for letter in letters), "over-graded, %")
    return format_table(header, rows) + (
        "\n\nIntervals: 95 % over queries. Over-graded: share of the wrong labels that are above the gold."
    )


def _cases(models: Mapping[str, LabelScores]) -> str:
    cases = models["student"].by_case
    if not cases:
        return ""
    names = ["student", *sorted(name for name in models if name != "student")]
    rows = [(case, *(_percent(models[name].by_case[case]) for name in names)) for case in sorted(cases)]
    return format_table(("accuracy, %", *names), rows)


def _calibration(scores: StudentScores) -> str:
    rows = [
        (name, f"{found.ece:.3f}", f"{found.brier:.3f}", f"{found.aurc:.3f}")
        for name, found in (
            ("temperature 1", scores.uncalibrated),
            (f"temperature {scores.temperature:.2f}, as served", scores.calibration),
        )
    ]
    return format_table(("probabilities", "ECE", "Brier", "AURC"), rows)


def _origin(scores: StudentScores, scheme: Scheme, keys: Mapping[str, str]) -> str:
    export = scores.export
    weights = "8-bit" if export.int8_kept else "32-bit"
    rows = [
        ("labels", ", ".join(f"{label.letter} {label.name}" for label in scheme) + f" ({scheme.name})"),
        ("pairs labelled by a teacher's votes", f"{scores.labelled_pairs:,}"),
        ("judged pairs", f"{scores.gold_pairs:,}"),
        ("encoder", f"{scores.encoder}, {scores.parameters:,} parameters"),
        ("graph", f"ONNX, {weights} weights, {export.bytes / 1e6:.2f} MB"),
        *((f"artifact {name}", f"`{key}`") for name, key in sorted(keys.items())),
    ]
    return format_table(("what", "value"), rows)


def _interval(found: Interval) -> str:
    return f"{_percent(found.value)} [{_percent(found.lower)}, {_percent(found.upper)}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
