"""The embedded engine: samples a model of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agpo.rollout.chunk import Chunk
from agpo.rollout.decoder import make_decoder
from agpo.rollout.engine import Sampling, check_prompts, make_rollouts
from agpo.rollout.fingerprint import NEW_TOKENS, PROMPTS, Fingerprint, probe_prompts
from agpo.rollout.randomness import Uniforms
from agpo.rollout.sampler import sample_answers


class LocalEngine:
    """Samples the live model; a policy that is trained in place needs no hand-over.

    An `Engine`. The cache lives as long as a chunk, so there is nothing to free between chunks: it need not sleep.
    """

    def __init__(self, model: Any, stops: set[int]) -> None:
        self.model = model
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
        problems = list(dict.fromkeys(chunk.problem_ids))
        check_prompts(prompts, problems, sampling.tokens, self.positions)
        place = {problem: index for index, problem in enumerate(problems)}
        samples = sample_answers(
            self.decoder,
            [prompts[problem] for problem in problems],
            np.array([place[problem] for problem in chunk.problem_ids]),
            Uniforms(sampling.seed, step, chunk.problem_ids, chunk.samples),
            tokens=sampling.tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            stops=self.stops,
            progress=progress,
        )
        return make_rollouts(
            chunk,
            prompts,
            _make_lists(samples.tokens, samples.lengths),
            _make_lists(samples.logprobs, samples.lengths),
            samples.truncated.tolist(),
            step=step,
            policy=policy,
            seed=sampling.seed,
        )

    def load_policy(self, folder: Path) -> None:
        """Put the folder's weights into the live model; an optimiser that has its parameters keeps its state."""
        from agpo.learner.policy import load_policy
        from agpo.learner.shapes import check_shapes

        loaded, _ = load_policy(folder, self.model.device)
        found, own = loaded.state_dict(), self.model.state_dict()
        check_shapes(found, own, f"{folder} has another model", "engine")
        self.model.load_state_dict(found)

    def fingerprint(self) -> Fingerprint:
        ids, logprobs = [], []
        logits = self.decoder.start(probe_prompts(self.model.config.vocab_size, self.positions), PROMPTS, NEW_TOKENS)
        while True:
            token = logits.argmax(dim=-1)
            ids.append(token.tolist())
            logprobs.append(logits.log_softmax(dim=-1).gather(1, token[:, None])[:, 0].tolist())
            if len(ids) == NEW_TOKENS:
                break
            logits = self.decoder.step(np.arange(PROMPTS), token)
        self.decoder.finish()
        return Fingerprint(tuple(zip(*ids, strict=True)), tuple(zip(*logprobs, strict=True)))

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


def _make_lists(values: NDArray[Any], lengths: NDArray[np.int32]) -> pl.Series:
    """The first ``lengths[i]`` values of each row as a list column. Every answer has a token at least."""
    kept = np.arange(values.shape[1]) < lengths[:, None]
    flat = pl.DataFrame({"row": np.repeat(np.arange(len(values)), lengths), "value": values[kept]})
    return flat.group_by("row", maintain_order=True).agg("value")["value"]
