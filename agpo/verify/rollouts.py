"""Verdicts of rollouts: every distinct answer of a problem is decoded and decided once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from agpo.records import Verdicts
from agpo.verify.audit import Audit, audit_verdicts
from agpo.verify.math import NAME as MATH
from agpo.verify.pool import Item, VerifierPool
from agpo.verify.review import apply_annotations


def verify_rollouts(
    rollouts: pl.DataFrame,
    problems: pl.DataFrame,
    tokenizer: Any,
    pool: VerifierPool,
    progress: Callable[[int], None] | None = None,
    annotations: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Decide rollouts (`records.Rollouts`) of known problems (`records.Problems`): `records.Verdicts`, in order.

    ``annotations`` (`records.Annotations`): what people decided about answers, in the place of the verifier's verdict.
    """
    facts = {row["id"]: (row["verifier"], row["gold"]) for row in problems.iter_rows(named=True)}
    answers = [
        (problem, tuple(response))
        for problem, response in zip(rollouts["problem_id"], rollouts["response_ids"].to_list(), strict=True)
    ]
    distinct = list(dict.fromkeys(answers))
    texts = tokenizer.batch_decode([list(response) for _, response in distinct], skip_special_tokens=True)
    items = [
        Item(verifier=facts[problem][0], response=text, gold=facts[problem][1])
        for (problem, _), text in zip(distinct, texts, strict=True)
    ]
    decided = dict(zip(distinct, pool.verify(items, progress), strict=True))
    found = [decided[answer] for answer in answers]
    first = set()
    seconds = []
    for answer in answers:  # the time of a shared verdict is counted once
        seconds.append(0.0 if answer in first else decided[answer].seconds)
        first.add(answer)
    verdicts = pl.DataFrame(
        {
            "id": rollouts["id"],
            "verdict": [verdict.verdict for verdict in found],
            "cause": [verdict.cause for verdict in found],
            "reason": [verdict.reason for verdict in found],
            "extracted": [verdict.extracted for verdict in found],
            "seconds": seconds,
            "verifier": [verdict.verifier for verdict in found],
            "version": [verdict.version for verdict in found],
        },
        schema=Verdicts.create_empty().schema,
    )
    if annotations is None:
        return verdicts
    golds = [facts[problem][1] for problem in rollouts["problem_id"]]
    return apply_annotations(verdicts, rollouts["problem_id"].to_list(), golds, annotations)


def audit_rollouts(
    rollouts: pl.DataFrame, verdicts: pl.DataFrame, problems: pl.DataFrame, tokenizer: Any, sample: int, seed: int
) -> Audit | None:
    """A second reading of ``sample`` of the verdicts (see `audit_verdicts`); None where none is the math verifier's."""
    if not sample or not (verdicts["verifier"] == MATH).any():
        return None
    golds = dict(problems.select("id", "gold").iter_rows())
    asked = rollouts["problem_id"].to_list()
    texts = tokenizer.batch_decode(rollouts["response_ids"].to_list(), skip_special_tokens=True)
    return audit_verdicts(verdicts, asked, texts, [golds[problem] for problem in asked], sample=sample, seed=seed)
