"""The engine: turns a chunk into rollouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agpo.records import Rollouts, rollout_id
from agpo.rollout.chunk import Chunk
from agpo.rollout.decoder import make_decoder
from agpo.rollout.randomness import Uniforms
from agpo.rollout.sampler import sample_answers


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    tokens: int  # most new tokens of an answer
    temperature: float
    seed: int


class LocalEngine:
    """Samples the live model in this process; a policy that is trained in place needs no hand-over."""

    def __init__(self, model: Any, stops: set[int]) -> None:
        self.decoder = make_decoder(model)
        self.positions = getattr(model.config, "max_position_embeddings", None)
        self.stops = stops

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
        """The chunk's rollouts (`records.Rollouts`). ``prompts``: token ids by problem id.

        ValueError names the problem whose prompt is empty or leaves no room for the answer.
        """
        problems = list(dict.fromkeys(chunk.problem_ids))
        place = {problem: index for index, problem in enumerate(problems)}
        for problem in problems:
            self._check_length(problem, len(prompts[problem]), sampling.tokens)
        prompt_of = np.array([place[problem] for problem in chunk.problem_ids])
        samples = sample_answers(
            self.decoder,
            [prompts[problem] for problem in problems],
            prompt_of,
            Uniforms(sampling.seed, step, chunk.problem_ids, chunk.samples),
            tokens=sampling.tokens,
            temperature=sampling.temperature,
            stops=self.stops,
            progress=progress,
        )
        encoded = pl.Series([list(prompts[problem]) for problem in problems], dtype=pl.List(pl.Int32))
        return pl.DataFrame(
            {
                "id": [rollout_id(step, *pair) for pair in zip(chunk.problem_ids, chunk.samples, strict=True)],
                "problem_id": chunk.problem_ids,
                "sample": chunk.samples,
                "prompt_ids": encoded.gather(prompt_of),
                "response_ids": _make_lists(samples.tokens, samples.lengths),
                "logprobs": _make_lists(samples.logprobs, samples.lengths),
                "truncated": samples.truncated,
                "policy": [policy] * len(chunk),
                "seed": [sampling.seed] * len(chunk),
            },
            schema=Rollouts.create_empty().schema,
        )

    def _check_length(self, problem: str, prompt: int, tokens: int) -> None:
        if not prompt:
            raise ValueError(f"the prompt of problem {problem} has no tokens")
        if self.positions is not None and prompt + tokens > self.positions:
            raise ValueError(
                f"the prompt of problem {problem} ({prompt} tokens) and rollout.tokens = {tokens} "
                f"exceed the {self.positions} positions that the model knows"
            )


def _make_lists(values: NDArray[Any], lengths: NDArray[np.int32]) -> pl.Series:
    """The first ``lengths[i]`` values of each row as a list column. Every answer has a token at least."""
    kept = np.arange(values.shape[1]) < lengths[:, None]
    flat = pl.DataFrame({"row": np.repeat(np.arange(len(values)), lengths), "value": values[kept]})
    return flat.group_by("row", maintain_order=True).agg("value")["value"]
