"""The Markdown of a decision."""

from __future__ import annotations

import numpy as np
import pytest

from agpo.evaluation.card import report
from agpo.evaluation.gate import Decision, decide
from tests.agpo.evaluation.simulation import draw_rates, sample_counts, shift_rates


@pytest.fixture(scope="module")
def decision() -> Decision:
    random = np.random.default_rng(0)
    rates = {"in_distribution": draw_rates(100, random), "hard|er": draw_rates(100, random)}
    base, champion, candidate = (
        sample_counts({name: shift_rates(chances, shift, 0.2, random) for name, chances in rates.items()}, 64, random)
        for shift in (0.0, 0.2, 0.8)
    )
    return decide(base, candidate, champion, [1, 4, 32], 0.05, 0.95, 200, 0)


def test_shows_outcome_reasons_and_every_piece_of_evidence(decision: Decision) -> None:
    text = report(decision, candidate="version 7", champion="version 5")
    assert text.startswith(f"**{decision.outcome.capitalize()}")
    assert all(f"- {line}" in text for line in (*decision.reasons, *decision.notes))
    for entry in decision.boundary_evidence:
        values = (entry.reference, entry.candidate)
        cells = f"| {entry.k} | " + " | ".join(f"{100 * value:.1f}" for value in values)
        assert cells in text
    assert "### Quality: version 7 against version 5" in text
    assert "| mean over sets | 1 |" in text
    assert "one-sided 95 % bounds" in text


def test_tables_are_well_formed(decision: Decision) -> None:
    blocks = [block.splitlines() for block in report(decision).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for lines in blocks:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        assert set(lines[1]) == set("|-: ")


def test_quality_is_shown_against_the_base_when_that_is_the_champion() -> None:
    random = np.random.default_rng(0)
    counts = sample_counts({"a": draw_rates(60, random)}, 64, random)
    assert "### Quality: candidate against Qwen" in report(
        decide(counts, counts, None, [1], 0.05, 0.95, 100, 0), base="Qwen"
    )
