"""What a step's rollouts, verdicts and advantages say about the run."""

from __future__ import annotations

import numpy as np
import polars as pl

from agpo.learner.batch import Batch

# Of verdicts: no final answer, and why one is wrong or could not be decided.
_REASONS = (
    *("missing", "malformed", "mismatch", "unreadable", "unparsable"),
    *("timeout", "memory", "crash", "stalled", "killed", "refused", "absent"),
)


def describe_step(rollouts: pl.DataFrame, verdicts: pl.DataFrame, batch: Batch) -> dict[str, float]:
    """Metrics of one step: rewards, group shares, lengths, verdicts and gradient masses.

    m_S and m_F (``policy/mass_positive``, ``policy/mass_negative``) are the sums of |A| over right and wrong rows per
    usable row: the positive and negative gradient mass of FADE (arXiv 2607.01490).
    """
    rows = len(rollouts)
    usable = max(1, len(batch))
    correct, advantages = batch.correct, batch.advantages
    solved = (
        pl.DataFrame({"group": batch.groups.numpy(), "correct": correct.numpy()})
        .group_by("group")
        .agg(pl.col("correct").mean())["correct"]
    )
    groups = max(1, len(solved))
    lengths = rollouts["response_ids"].list.len()
    distinct = rollouts.select("problem_id", pl.col("response_ids").hash()).n_unique()
    by_response = (verdicts["verdict"] == "unverifiable") & (verdicts["cause"] == "response")
    found = {
        "rollout/reward_mean": float((correct.double() * 2 - 1).mean()) if len(batch) else 0.0,
        "rollout/accuracy": float(correct.double().mean()) if len(batch) else 0.0,
        "rollout/all_wrong_share": float((solved == 0).sum()) / groups,
        "rollout/all_correct_share": float((solved == 1).sum()) / groups,
        "rollout/mixed_share": float(((solved > 0) & (solved < 1)).sum()) / groups,
        "rollout/length_mean": float(lengths.mean() or 0.0),  # type: ignore[arg-type]
        "rollout/tokens": float(lengths.sum()),
        "rollout/truncated_share": float(rollouts["truncated"].sum()) / rows,
        "rollout/duplicate_share": 1 - distinct / rows,
        "rollout/repetition": measure_repetition(rollouts["response_ids"]),
        "verify/correct_share": float((verdicts["verdict"] == "correct").sum()) / rows,
        "verify/wrong_share": float((verdicts["verdict"] == "wrong").sum()) / rows,
        "verify/unverifiable_share": float((verdicts["verdict"] == "unverifiable").sum()) / rows,
        "verify/unverifiable_by_response_share": float(by_response.sum()) / rows,
        "policy/mass_positive": float(advantages[correct].abs().sum()) / usable,
        "policy/mass_negative": float(advantages[~correct].abs().sum()) / usable,
    }
    found |= {f"verify/{reason}_share": float((verdicts["reason"] == reason).sum()) / rows for reason in _REASONS}
    if found["policy/mass_negative"]:
        found["policy/mass_ratio"] = found["policy/mass_positive"] / found["policy/mass_negative"]
    if bool(correct.any()):
        found["policy/advantage_positive"] = float(advantages[correct].mean())
    if bool((~correct).any()):
        found["policy/advantage_negative"] = float(advantages[~correct].mean())
    return found


def measure_repetition(responses: pl.Series) -> float:
    """Share of the bigrams that repeat an earlier one of their own response: seq-rep-2 of arXiv 1908.04319, pooled.

    ``responses``: a list of token ids each. 0 where no response has two tokens.
    """
    lengths = responses.list.len().to_numpy()
    tokens = responses.explode().drop_nulls().to_numpy().astype(np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    inside = rows[1:] == rows[:-1]
    size = tokens.max(initial=0) + 1
    bigrams = ((rows[1:] * size + tokens[:-1]) * size + tokens[1:])[inside]
    return 1 - len(np.unique(bigrams)) / len(bigrams) if len(bigrams) else 0.0
