"""The student's gate."""

from __future__ import annotations

from pydantic import Field

from agpo.settings.common import Settings


class StudentJudging(Settings):
    """When a student becomes champion."""

    margin: float = Field(0.05, gt=0, le=0.5, title="Margin", description="largest drop of a case's accuracy")
    confidence: float = Field(0.95, gt=0.5, lt=1, title="Confidence", description="one-sided, of all cases together")
    resamples: int = Field(2000, ge=100, title="Bootstrap resamples")
