"""The comparator that any boundary claim must beat: some of the k samples from the base, the others from the policy."""

from __future__ import annotations

import numpy as np
import polars as pl

from agpo.evaluation.passk import pass_tables


def mixture_frontier(base: pl.DataFrame, policy: pl.DataFrame, k: int) -> pl.DataFrame:
    """Expected pass@1 and pass@k when j of k samples come from the base, for j = k…0.

    Columns set, base_samples (j), pass_at_1, pass_at_k. Per problem, pass@k is 1 − (1 − base pass@j)(1 − policy
    pass@(k−j)), unbiased because the samples are independent; pass@1 is the mean with weights j/k and 1 − j/k.
    Errors as in `pass_tables`.
    """
    frames = []
    from_base = np.arange(k, -1, -1)
    for name, table in pass_tables({"base": base, "policy": policy}, range(1, k + 1)).items():
        failure = {side: np.pad(1 - values, ((0, 0), (1, 0)), constant_values=1.0) for side, values in table.items()}
        success = 1 - failure["base"][:, from_base] * failure["policy"][:, k - from_base]
        base_at_1, policy_at_1 = table["base"][:, 0].mean(), table["policy"][:, 0].mean()
        pass_at_1 = (from_base * base_at_1 + (k - from_base) * policy_at_1) / k
        frame = pl.DataFrame({"base_samples": from_base, "pass_at_1": pass_at_1, "pass_at_k": success.mean(0)})
        frames.append(frame.select(pl.lit(name).alias("set"), pl.all()))
    return pl.concat(frames)
