"""Stage: source → problems, demonstrations, quarantine and receipt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agpo.problems.source import find_files, source_digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from agpo.problems.contamination import EvaluationSet
    from agpo.problems.decisions import Decided
    from agpo.problems.reader import SourceRow
    from agpo.problems.table import CheckedRows
    from agpo.settings import HubProblems, ProblemSource, RowProblems, TableProblems
    from agpo.stages import Work


def prepare(settings: ProblemSource, work: Work) -> dict[str, Any]:
    """Write the tables ``problems``, ``quarantine`` and, where the source has worked answers, ``demonstrations``, of
    query–ad pairs ``pairs``, and ``receipt.json``: what was read, by content digest, and what became of it.

    Raises FileNotFoundError for a path without a file, `TooManyBadRows` where the share of bad rows is above its bound
    (the quarantine then lies in the stage's partial space), ValueError where the splits ask for too many problems.
    """
    from agpo.artifacts.table import write_table
    from agpo.problems.table import count_reasons
    from agpo.records import Demonstrations, Pairs, Problems, Quarantine

    sources = source_digests(settings)
    pairs: pl.DataFrame | None = None
    separation: dict[str, Any] = {}
    decided: Decided | None = None
    if settings.source == "countdown" or settings.source == "shop":
        if settings.source == "countdown":
            from agpo.problems.countdown import generate_countdown

            problems, demonstrations = generate_countdown(settings, work.seed)
        else:
            from agpo.problems.shop import generate_shop, pose_problems

            problems, pairs, demonstrations = generate_shop(settings, work.seed)
            if settings.decisions:
                decided = _decide(pairs, settings.decisions, "esci4", "plain-v1")
                pairs, problems = decided.pairs, pose_problems(decided.pairs)
        quarantine: pl.DataFrame = Quarantine.create_empty()
        read = kept = problems.height - (decided.joined if decided else 0)
    else:
        from agpo.problems.separation import read_evaluation_sets, separate

        evaluation = read_evaluation_sets(settings, sources)
        checked, separation = separate(_check_source(settings, sources, work), settings, evaluation)
        if settings.verifier == "label":
            from agpo.problems.pair_rows import pose_pairs, show_labels, split_pairs

            pairs = split_pairs(checked, settings)
            if settings.decisions:
                decided = _decide(pairs, settings.decisions, settings.scheme, settings.prompt, evaluation)
                pairs = decided.pairs
            problems, demonstrations = pose_pairs(pairs), show_labels(pairs)
        else:
            problems, demonstrations = _split_rows(checked, settings)
        quarantine, read, kept = checked.quarantine, checked.read, checked.kept.height
    write_table(work.out, "problems.parquet", problems, Problems)
    rows = {"read": read, "kept": kept, "quarantined": quarantine.height, "unused": kept - problems.height}
    if decided:
        rows["unused"] += decided.joined
        quarantine = quarantine.vstack(decided.quarantine)
    write_table(work.out, "quarantine.parquet", quarantine, Quarantine)
    if demonstrations.height:
        write_table(work.out, "demonstrations.parquet", demonstrations, Demonstrations)
    if pairs is not None:
        write_table(work.out, "pairs.parquet", pairs, Pairs)
    receipt = {
        "source": settings.source,
        "digests": sources,
        "rows": rows,
        "quarantined": count_reasons(quarantine),
        "separation": separation,
        "decisions": decided.counts if decided else {},
        "problems": _count_sets(problems),
        "demonstrations": demonstrations.height,
    }
    (work.out / "receipt.json").write_text(json.dumps(receipt, indent=1, ensure_ascii=False), encoding="utf-8")
    return {"rows": problems.height, "metrics": _flatten(receipt)}


def _decide(
    pairs: pl.DataFrame, address: str, scheme: str, prompt: str, evaluation: Sequence[EvaluationSet] = ()
) -> Decided:
    from agpo.problems.decisions import apply_decisions
    from agpo.relevance import find_scheme

    return apply_decisions(pairs, address, find_scheme(scheme), prompt, evaluation)


def _check_source(settings: TableProblems | HubProblems, sources: Mapping[str, str], work: Work) -> CheckedRows:
    from agpo.artifacts.table import write_table
    from agpo.problems.table import TooManyBadRows, check_rows, count_reasons
    from agpo.records import Quarantine

    rows = _read_source(settings, sources)
    if settings.verifier == "label":
        from agpo.problems.pair_rows import ROW_SETTINGS, read_pairs

        checked = check_rows(read_pairs(rows, settings), settings.model_copy(update=ROW_SETTINGS))
    else:
        from agpo.problems.gold_check import check_golds

        checked = check_rows(check_golds(rows, settings), settings)
    bad = checked.quarantine.height
    if bad > settings.largest_bad_share * checked.read or not checked.kept.height:
        write_table(work.partial, "quarantine.parquet", checked.quarantine, Quarantine)
        raise TooManyBadRows(
            checked.read,
            count_reasons(checked.quarantine),
            next(checked.quarantine.select("source", "row", "detail").iter_rows(), None),
            settings.largest_bad_share,
            f"{work.partial.uri}/quarantine.parquet",
        )
    return checked


def _read_source(settings: TableProblems | HubProblems, sources: Mapping[str, str]) -> Iterator[SourceRow]:
    if settings.source == "hub":
        from agpo.problems.hub import read_hub_rows

        yield from read_hub_rows(settings, sources[settings.dataset])
    else:
        from agpo.problems.reader import read_rows

        for file in find_files(settings.path):
            yield from read_rows(file)


def _split_rows(checked: CheckedRows, settings: RowProblems) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables `Problems` and `Demonstrations`; the latter has the worked answers of the training rows, if any."""
    import polars as pl

    from agpo.problems.prompt import render_prompt
    from agpo.problems.split import assign_splits
    from agpo.records import Demonstrations, Problems

    rows = checked.kept
    splits = assign_splits(rows["id"].to_list(), settings.selection, settings.confirmation)
    rows = rows.with_columns(
        prompt=pl.Series([render_prompt(settings.prompt, question) for question in rows["question"]]),
        verifier=pl.lit(settings.verifier),
        split=pl.Series(splits, dtype=pl.String),
    ).filter(pl.col("split").is_not_null())
    train = pl.col("split") == "train"
    rows = rows.with_columns(set=pl.when(train).then(pl.lit("train")).otherwise(pl.lit("held_out")))
    problems = Problems.cast(rows.select(Problems.column_names()))
    if settings.gold_format == "plain":
        return problems, Demonstrations.create_empty()
    return problems, rows.filter(train).select("id", "prompt", response="answer")


def _count_sets(problems: pl.DataFrame) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {"train": {}, "selection": {}, "confirmation": {}}
    for split, name, count in problems.group_by("split", "set", maintain_order=True).len().iter_rows():
        counts[split][name] = count
    return counts


def _flatten(receipt: Mapping[str, Any]) -> dict[str, float]:
    metrics = {f"problems/{name}": count for name, count in receipt["rows"].items()}
    metrics |= {
        f"problems/{split}_{name}": n for split, sets in receipt["problems"].items() for name, n in sets.items()
    }
    separation = receipt["separation"]
    metrics |= {f"problems/{name}": separation[name] for name in ("contaminated", "near_duplicate") if separation}
    metrics |= {f"problems/decisions_{name}": count for name, count in receipt["decisions"].items()}
    return {**metrics, "problems/demonstrations": receipt["demonstrations"]}
