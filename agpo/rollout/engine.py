"""The engine: turns a chunk into rollouts. What every engine takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from agpo.records import Rollouts, rollout_id
from agpo.rollout.chunk import Chunk
from agpo.rollout.fingerprint import Fingerprint


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    The log-probs of the rollouts are those of the distribution that was drawn from: at ``temperature``, and where
    ``top_p``, ``top_k`` or ``min_p`` take tokens away, scaled up to what is left. They are what an importance weight
    divides by. A learner that reads all tokens sees other log-probs then, lower ones.
    """

    tokens: int  # most new tokens of an answer
    temperature: float
    seed: int
    top_p: float = 1.0  # of these three see `truncation.truncate_logits`; the defaults keep every token
    top_k: int = 0
    min_p: float = 0.0


class Engine(Protocol):
    def generate(
        self,
        chunk: Chunk,
        prompts: Mapping[str, Sequence[int]],
        sampling: Sampling,
        *,
        step: int,
        policy: str,
        progress: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        """The chunk's rollouts (`records.Rollouts`), in its order. The same chunk gives the same answers.

        ``prompts``: token ids by problem id. ``policy``: key of the policy, as the rows will name it. ``progress`` is
        called with the number of answers that ended.

        ValueError names the problem whose prompt is empty or leaves no room for the answer.
        """

    def load_policy(self, folder: Path) -> None:
        """Sample from the policy in this Hugging Face folder from now on, of the same shape as the one before.

        ValueError says what differs; the engine goes on with the weights that it had.
        """

    def fingerprint(self) -> Fingerprint:
        """What the policy that is sampled says to the fixed prompts."""

    def sleep(self) -> None:
        """Free the accelerator's memory for the learner, until `wake`."""

    def wake(self) -> None: ...

    def close(self) -> None:
        """End what the engine has started."""


def check_prompts(
    prompts: Mapping[str, Sequence[int]], problems: Sequence[str], tokens: int, positions: int | None
) -> None:
    """ValueError names a problem whose prompt is empty, or too long for ``positions`` with ``tokens`` new ones."""
    for problem in problems:
        length = len(prompts[problem])
        if not length:
            raise ValueError(f"the prompt of problem {problem} has no tokens")
        if positions is not None and length + tokens > positions:
            raise ValueError(
                f"the prompt of problem {problem} ({length} tokens) and rollout.tokens = {tokens} "
                f"exceed the {positions} positions that the model knows"
            )


def make_rollouts(
    chunk: Chunk,
    prompts: Mapping[str, Sequence[int]],
    responses: pl.Series,
    logprobs: pl.Series,
    truncated: Sequence[bool],
    *,
    step: int,
    policy: str,
    seed: int,
) -> pl.DataFrame:
    """The table of a chunk's answers, a row each in the order of the chunk."""
    place = {problem: index for index, problem in enumerate(dict.fromkeys(chunk.problem_ids))}
    encoded = pl.Series([list(prompts[problem]) for problem in place], dtype=pl.List(pl.Int32))
    return pl.DataFrame(
        {
            "id": [rollout_id(step, *pair) for pair in zip(chunk.problem_ids, chunk.samples, strict=True)],
            "problem_id": chunk.problem_ids,
            "sample": chunk.samples,
            "prompt_ids": encoded.gather([place[problem] for problem in chunk.problem_ids]),
            "response_ids": responses,
            "logprobs": logprobs,
            "truncated": truncated,
            "policy": [policy] * len(chunk),
            "seed": [seed] * len(chunk),
        },
        schema=Rollouts.create_empty().schema,
    )
