"""What a folder of labels says as a whole: metrics, the audit queue, the quality against gold, the figure."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from agpo.relevance.figures import agreement_figure
from agpo.relevance.metrics import Labelled, LabelScores, score_labels
from agpo.relevance.scheme import Scheme
from agpo.spreadsheet import quote_cell

LABELS, ROLLOUTS = "labels-*.parquet", "rollouts-*.parquet"
_AUDITED = ("label_id", "pair_id", "query", "title", "attributes", "votes", "label", "agreement", "decision")


def summarise_labels(folder: Path, scheme: Scheme, audit: int) -> dict[str, float]:
    """Metrics of the labels (`records.Labels`) and answers in ``folder``, with three files written beside them:

    ``audit.csv``: the ``audit`` pairs with the least agreement and an empty column ``decision`` for people to fill in;
    ``agreement.png``; and, where any pair has gold, ``quality.json`` (`LabelScores`).

    The tables are streamed; together in memory are only the letters of the pairs with gold.
    """
    labels, answers = _scan(folder, LABELS), _scan(folder, ROLLOUTS)
    _write_audit(labels, scheme, audit, folder / "audit.csv")
    levels = _count_levels(labels)
    figure = agreement_figure(levels, scheme)
    figure.savefig(folder / "agreement.png", metadata={"Software": None})
    metrics = _describe(labels, answers, scheme)
    judged = _read_judged(labels, scheme)
    if judged.height:
        labelled = Labelled(scheme, judged["gold"].to_list(), judged["label"].to_list(), judged["query_id"].to_list())
        scores = score_labels(labelled, judged["case"].to_list())
        (folder / "quality.json").write_text(scores.model_dump_json(indent=1), encoding="utf-8")
        metrics |= _compare(scores, judged)
    return metrics


def _scan(folder: Path, pattern: str) -> pl.LazyFrame:
    return pl.scan_parquet(sorted(folder.glob(pattern)), glob=False)


def _describe(labels: pl.LazyFrame, answers: pl.LazyFrame, scheme: Scheme) -> dict[str, float]:
    unread, cast = pl.col("unread").cast(pl.Int64).sum(), pl.col("votes").list.sum().cast(pl.Int64).sum()
    found = labels.select(
        pl.len().alias("pairs"),
        pl.col("agreement").mean(),
        (pl.col("agreement") == 1).mean().alias("unanimous_share"),
        (unread / (unread + cast)).alias("parse_failure_share"),
        pl.col("label").is_null().sum().alias("unlabelled"),
        *(pl.col("label").eq_missing(label.letter).mean().alias(f"{label.letter}_share") for label in scheme),
    )
    tokens = answers.select(tokens=pl.col("response_ids").list.len().cast(pl.Int64).sum())
    values = {**_collect(found).row(0, named=True), **_collect(tokens).row(0, named=True)}
    return {f"label/{name}": float(value) for name, value in values.items()}


def _read_judged(labels: pl.LazyFrame, scheme: Scheme) -> pl.DataFrame:
    """Gold, label, query and case of the judged pairs, and the share of their answers that are right."""
    letters = [label.letter for label in scheme]
    level = pl.col("gold").replace_strict(letters, range(len(letters)), return_dtype=pl.Int64)
    answers = pl.col("votes").list.sum() + pl.col("unread")
    right = (pl.col("votes").list.get(level) / answers).alias("right_share")
    return _collect(labels.filter(pl.col("gold").is_not_null()).select("gold", "label", "query_id", "case", right))


def _compare(scores: LabelScores, judged: pl.DataFrame) -> dict[str, float]:
    metrics = {"label/accuracy": scores.accuracy.value, "label/macro_f1": scores.macro_f1.value}
    if scores.over_graded is not None:
        metrics["label/over_graded_share"] = scores.over_graded
    metrics["label/p_at_1"] = float(judged["right_share"].mean())  # type: ignore[arg-type]
    cases = judged.drop_nulls("case").group_by("case").agg(pl.col("right_share").mean()).sort("case")
    return metrics | {f"label/p_at_1_{case}": share for case, share in cases.iter_rows()}


def _count_levels(labels: pl.LazyFrame) -> pl.DataFrame:
    """Pairs, those with gold, and the right ones of these, by label and votes for it."""
    judged = pl.col("gold").is_not_null()
    counted = labels.group_by("label", votes=pl.col("votes").list.max()).agg(
        pairs=pl.len(),
        judged=judged.sum(),
        right=(judged & pl.col("gold").eq_missing(pl.col("label"))).sum(),
        answers=(pl.col("votes").list.sum() + pl.col("unread")).max(),
    )
    return _collect(counted).sort("votes", "label")


def _write_audit(labels: pl.LazyFrame, scheme: Scheme, audit: int, path: Path) -> None:
    """The labels' ids are digests, so of pairs with equal agreement it is chance that decides, yet always alike."""
    queue = _collect(labels.bottom_k(audit, by=["agreement", "id"])).sort("agreement", "id")
    letters = [label.letter for label in scheme]
    votes = [
        ", ".join(f"{letter} {count}" for letter, count in reversed([*zip(letters, row, strict=True)]) if count)
        for row in queue["votes"].to_list()
    ]
    queue.with_columns(
        pl.Series("votes", votes, dtype=pl.String),
        pl.col("agreement").round(3),
        label_id=pl.col("id"),
        decision=pl.lit(None, dtype=pl.String),
        **{
            name: pl.Series([quote_cell(cell) for cell in queue[name]], dtype=pl.String)
            for name in ("query", "title", "attributes")
        },
    ).select(_AUDITED).write_csv(path)


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")
