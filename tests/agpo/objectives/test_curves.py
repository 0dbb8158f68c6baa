from __future__ import annotations

import re
from math import sqrt
from pathlib import Path

import pytest

from agpo.objectives import OBJECTIVES, Agpo
from agpo.objectives.__main__ import advantage_curves, all_methods, draw_curves
from agpo.objectives.losses import POLICY_LOSSES

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_a_curve_runs_over_all_success_rates() -> None:
    positive, negative = advantage_curves(Agpo(), samples=8)
    scales = [sqrt(4 * right / 8 * (1 - right / 8) + 1) for right in range(9)]
    assert positive == pytest.approx([2 * (1 - right / 8) / scales[right] for right in range(1, 9)])
    assert negative == pytest.approx([-2 * right / 8 / scales[right] - 1 for right in range(8)])


def test_the_picture_has_a_panel_for_every_kind(tmp_path: Path) -> None:
    figure = draw_curves(all_methods(), samples=8)
    titles = {axes.get_title() for axes in figure.axes}
    assert set(OBJECTIVES) <= titles
    figure.savefig(tmp_path / "objectives.png", dpi=40)


def test_the_page_explains_every_kind_and_shows_the_picture() -> None:
    page = (DOCS / "objectives.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))
    assert set(OBJECTIVES) | set(POLICY_LOSSES) | set(Agpo.model_fields) - {"kind", "schedule"} <= rows
    assert (DOCS / "objectives.png").stat().st_size < 200_000
