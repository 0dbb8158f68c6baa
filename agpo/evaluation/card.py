"""A decision as Markdown, for a model card or an artifact page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agpo.evaluation.comparison import Comparison, points
from agpo.evaluation.gate import Decision

_HEADLINES = {
    "promote": "Promote: the boundary is kept and quality is better than the champion's.",
    "reject": "Reject: the candidate lost boundary or quality.",
    "inconclusive": "Inconclusive: the evidence does not decide; the champion stays.",
}


def report(decision: Decision, candidate: str = "candidate", champion: str = "champion", base: str = "base") -> str:
    """Markdown with the outcome, its reasons and its evidence; the names are shown for the policies."""
    reference = base if decision.champion_is_base else champion
    names = {"base": base, "candidate": candidate, "champion": champion}
    sections = [
        f"**{_HEADLINES[decision.outcome]}**",
        "\n".join(f"- {reason}" for reason in decision.reasons),
        f"### Boundary: {candidate} against {base}",
        _comparisons(decision.boundary_evidence, base, candidate),
        f"### Quality: {candidate} against {reference}",
        _comparisons([*decision.quality_evidence, decision.quality_mean], reference, candidate),
        _method(decision),
        "### What this evaluation can decide",
        format_table(
            ("set", "problems", "hardest k", "standard error", "equal model keeps boundary", "problems for 90 %"),
            (
                (
                    entry.set,
                    f"{entry.problems:,}",
                    entry.k,
                    f"{100 * entry.standard_error:.2f}",
                    f"{100 * entry.equal_passes:.0f} %",
                    f"{entry.problems_wanted:,}",
                )
                for entry in decision.power
            ),
        ),
        "### Samples",
        format_table(
            ("policy", "samples", "unverifiable", "truncated", "without answer"),
            (
                (
                    names[policy],
                    f"{totals.samples:,}",
                    *(
                        _share(count, totals.samples)
                        for count in (totals.unverifiable, totals.truncated, totals.missing)
                    ),
                )
                for policy, totals in decision.totals.items()
            ),
        ),
        "\n".join(f"- {note}" for note in decision.notes),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _comparisons(entries: Sequence[Comparison], reference: str, candidate: str) -> str:
    return format_table(
        ("set", "k", f"{reference}, %", f"{candidate}, %", "difference, points", "lower", "upper"),
        (
            (
                entry.set,
                entry.k,
                f"{100 * entry.reference:.1f}",
                f"{100 * entry.candidate:.1f}",
                f"**{points(entry.difference)}**",
                points(entry.lower),
                points(entry.upper),
            )
            for entry in entries
        ),
    )


def _method(decision: Decision) -> str:
    return (
        f"Mean pass@k over problems; lower and upper are one-sided {100 * decision.confidence:g} % bounds that hold "
        f"for all rows of both tables together (max-t, {decision.resamples:,} paired resamples of problems, seed "
        f"{decision.seed}). Boundary margin: {points(-decision.margin)} points."
    )


def _share(count: int, whole: int) -> str:
    return f"{count:,} ({100 * count / whole:.2f} %)"


def format_table(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
