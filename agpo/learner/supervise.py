"""Stage: the base trained further on gold by supervision, for whoever asks what reinforcement learning adds.

The gold chooses which of the base's own answers are right, and these are imitated (rejection sampling, as in STaR,
arXiv 2203.14465, without its rationalisation): the same gold and the same kind of answers that reinforcement learning
sees, and no gradient from what was wrong.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from agpo.artifacts import Files
from agpo.artifacts.table import read_table, write_table
from agpo.learner.pairs import encode_pairs
from agpo.learner.policy import load_policy, save_policy
from agpo.learner.supervised import train_supervised
from agpo.problems import encode_prompts
from agpo.progress import progress
from agpo.records import Demonstrations
from agpo.rollout import Sampling, cut_chunks
from agpo.rollout.engines import open_engine
from agpo.settings import Supervision
from agpo.stages import Work
from agpo.verify import VerifierPool
from agpo.verify.review import read_annotations
from agpo.verify.rollouts import verify_rollouts

_TRAINING = "supervise.training"
_STEP = -3  # of the random numbers: neither training, evaluation nor labelling has it


def supervise(settings: Supervision, work: Work) -> dict[str, Any]:
    """Inputs ``base`` and ``problems`` → a Hugging Face folder. ValueError if no answer of the base is right."""
    problems = pl.read_parquet(work.inputs["problems"] / "problems.parquet").filter(pl.col("split") == "train")
    answers = _collect_answers(problems, settings, work)
    if answers.is_empty():
        raise ValueError(
            f"supervise: none of the base's {problems.height * settings.samples} answers to the training problems is "
            "right, so there is nothing to learn from; raise supervise.samples"
        )
    model, tokenizer = load_policy(work.inputs["base"], work.device)
    pairs = encode_pairs(tokenizer, answers, settings.chat_template)
    metrics = train_supervised(model, tokenizer, pairs, settings.training, work.seed, work.partial, where=_TRAINING)
    save_policy(model, tokenizer, work.out)
    return {"rows": answers.height, "metrics": {"supervise/answers": float(answers.height), **metrics}}


def _collect_answers(problems: pl.DataFrame, settings: Supervision, work: Work) -> pl.DataFrame:
    """The distinct right answers (`records.Demonstrations`), chunk by chunk; a chunk that is stored is not sampled."""
    ids = problems["id"].to_list()
    sampling = Sampling(settings.tokens, settings.temperature, work.seed)
    chunks = cut_chunks(ids, settings.samples, settings.chunk)
    verify = settings.verify
    annotations = read_annotations(verify.annotations)
    with (
        open_engine(settings.engine, work.inputs["base"], work.device) as (engine, tokenizer),
        VerifierPool(verify.workers, verify.timeout, verify.memory) as pool,
        progress("answers to learn from", len(ids) * settings.samples, "answers") as advance,
    ):
        encoded = encode_prompts(tokenizer, problems["prompt"].to_list(), settings.chat_template)
        prompts = dict(zip(ids, encoded, strict=True))
        for chunk in chunks:
            if not work.partial.exists(_shard(chunk.index)):
                rollouts = engine.generate(chunk, prompts, sampling, step=_STEP, policy=work.keys["base"])
                verdicts = verify_rollouts(rollouts, problems, tokenizer, pool, annotations=annotations)
                right = _keep_right(rollouts, verdicts, problems, tokenizer)
                write_table(work.partial, _shard(chunk.index), right, Demonstrations)
            advance(len(chunk))
    return _read_shards(work.partial, len(chunks))


def _keep_right(rollouts: pl.DataFrame, verdicts: pl.DataFrame, problems: pl.DataFrame, tokenizer: Any) -> pl.DataFrame:
    right = rollouts.filter((verdicts["verdict"] == "correct") & ~rollouts["truncated"])
    if right.is_empty():  # of which a tokenizer would make one empty text
        return Demonstrations.create_empty()
    texts = tokenizer.batch_decode(right["response_ids"].to_list(), skip_special_tokens=True)
    named = right.select("id", "problem_id", response=pl.Series(texts, dtype=pl.String))
    asked = problems.select("prompt", problem_id="id")
    return Demonstrations.cast(
        named.join(asked, on="problem_id", maintain_order="left").select("id", "prompt", "response")
    )


def _read_shards(partial: Files, count: int) -> pl.DataFrame:
    shards = [read_table(partial, _shard(index), Demonstrations) for index in range(count)]
    return pl.concat(shards).unique(["prompt", "response"], keep="first", maintain_order=True)


def _shard(index: int) -> str:
    return f"right-{index:05d}.parquet"
