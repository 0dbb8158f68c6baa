"""Stages that decide from counts: how far to go from the base, and whether the candidate may be promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from agpo.artifacts.table import read_table
from agpo.evaluation.card import report
from agpo.evaluation.figures import curve_figure, frontier_figure
from agpo.evaluation.gate import decide
from agpo.evaluation.passk import pass_curve
from agpo.evaluation.selection import choose_weight
from agpo.records import Counts
from agpo.settings import Judging, Selecting
from agpo.stages import Work


def select(settings: Selecting, work: Work) -> dict[str, Any]:
    """Inputs ``base`` and ``weight_<w>`` (counts of the selection split) → ``choice.json``, ``frontier.png``."""
    base = read_counts(work.inputs["base"])
    by_weight = {weight: read_counts(work.inputs[f"weight_{weight}"]) for weight in settings.weights}
    choice = choose_weight(base, by_weight, settings.k, settings.margin)
    (work.out / "choice.json").write_text(choice.model_dump_json(indent=1))
    figure = frontier_figure(base, by_weight, settings.k, choice)
    figure.savefig(work.out / "frontier.png", dpi=120)
    chosen = next(entry for entry in choice.evidence if entry.weight == choice.weight)
    metrics = {"eval/selection/weight": choice.weight, "eval/selection/kept": float(choice.kept)}
    for evidence in chosen.sets:
        metrics[f"eval/selection/{evidence.set}/pass_at_1"] = evidence.pass_at_1
        metrics[f"eval/selection/{evidence.set}/pass_at_{settings.k}"] = evidence.pass_at_k
    return {"rows": len(settings.weights), "metrics": metrics}


def judge(settings: Judging, work: Work) -> dict[str, Any]:
    """Inputs ``base``, ``candidate``, optionally ``champion`` and ``trained`` (counts of the confirmation split)
    → ``decision.json``, ``card.md``, ``curves.png``, ``curves.parquet``."""
    counts = {name: read_counts(folder) for name, folder in work.inputs.items()}
    decision = decide(
        counts["base"],
        counts["candidate"],
        counts.get("champion"),
        settings.ks,
        settings.margin,
        settings.confidence,
        settings.resamples,
        work.seed,
    )
    (work.out / "decision.json").write_text(decision.model_dump_json(indent=1))
    (work.out / "card.md").write_text(report(decision))
    curve_figure(counts, settings.ks, work.seed).savefig(work.out / "curves.png", dpi=120)
    curves = pl.concat(
        [pass_curve(frame, settings.ks).with_columns(policy=pl.lit(name)) for name, frame in counts.items()]
    )
    curves.write_parquet(work.out / "curves.parquet")
    metrics = {
        f"eval/{row['policy']}/{row['set']}/pass_at_{row['k']}": float(row["pass_at_k"])
        for row in curves.iter_rows(named=True)
    }
    return {"rows": len(counts), "metrics": metrics, "outcome": decision.outcome}


def read_counts(folder: Path) -> pl.DataFrame:
    return read_table(folder, "counts.parquet", Counts)
