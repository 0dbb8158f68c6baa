"""Rollouts and verdicts of a step, as the engine and the verifier give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from agpo.records import Rollouts, Verdicts
from tests.agpo.learner.models import VOCABULARY


def make_step(
    verdicts: Sequence[str], problems: Sequence[str], truncated: Sequence[bool] | None = None, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables `Rollouts` and `Verdicts` of random answers; row i answers ``problems[i]`` and has ``verdicts[i]``.

    Prompts have one to three tokens, responses one to six.
    """
    ids = [f"0/{problem}/{row}" for row, problem in enumerate(problems)]
    random = [np.random.default_rng([seed, row]) for row in range(len(ids))]
    responses = [r.integers(3, VOCABULARY, r.integers(1, 7)).tolist() for r in random]
    rollouts = pl.DataFrame(
        {
            "id": ids,
            "problem_id": problems,
            "sample": range(len(ids)),
            "prompt_ids": [[1, *range(3, 3 + sum(map(ord, problem)) % 3)] for problem in problems],
            "response_ids": responses,
            "logprobs": [(-r.random(len(response))).tolist() for r, response in zip(random, responses, strict=True)],
            "truncated": truncated or [False] * len(ids),
            "policy": ["policy"] * len(ids),
            "seed": [0] * len(ids),
        },
        schema=Rollouts.create_empty().schema,
    )
    table = pl.DataFrame(
        {
            "id": ids,
            "verdict": verdicts,
            "cause": ["none"] * len(ids),
            "reason": ["" if verdict == "correct" else "mismatch" for verdict in verdicts],
            "extracted": [None] * len(ids),
            "seconds": [0.001] * len(ids),
            "verifier": ["test"] * len(ids),
            "version": [1] * len(ids),
        },
        schema=Verdicts.create_empty().schema,
    )
    return Rollouts.validate(rollouts), Verdicts.validate(table)
