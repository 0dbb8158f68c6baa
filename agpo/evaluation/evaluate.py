"""Stage: n samples of every problem of a split, counted."""

from __future__ import annotations

import hashlib
from typing import Any

import dataframely as dy
import polars as pl

from agpo.artifacts.table import read_table, write_table
from agpo.problems import encode_prompts
from agpo.progress import progress
from agpo.records import Counts
from agpo.rollout import Sampling, cut_chunks
from agpo.rollout.engines import open_engine
from agpo.settings import Evaluation
from agpo.stages import Work
from agpo.verify import VerifierPool
from agpo.verify.review import read_annotations
from agpo.verify.rollouts import verify_rollouts


class Shard(dy.Schema):
    """What one chunk found of one problem. A problem's samples may be spread over chunks."""

    problem_id = dy.String(nullable=False)
    n = dy.Int32(nullable=False)
    correct = dy.Int32(nullable=False)
    wrong = dy.Int32(nullable=False)
    unverifiable = dy.Int32(nullable=False)
    truncated = dy.Int32(nullable=False)
    missing = dy.Int32(nullable=False)
    tokens = dy.Int64(nullable=False)
    logprob = dy.Float64(nullable=False)
    right_answers = dy.List(dy.String(nullable=False), nullable=False)  # digests of the distinct ones
    example = dy.String(nullable=True)  # the text of sample 0
    example_verdict = dy.String(nullable=True)


_STEP = -1  # of the random numbers: no training step has it, and every policy meets the same ones


def evaluate(settings: Evaluation, work: Work) -> dict[str, Any]:
    """Write ``counts.parquet`` (`records.Counts`) and ``examples.parquet`` (one answer a problem, as text).

    A chunk's counts are durable before the next chunk starts; a killed evaluation goes on with the first missing one.
    """
    problems = pl.read_parquet(work.inputs["problems"] / "problems.parquet").filter(pl.col("split") == settings.split)
    if not len(problems):
        raise ValueError(f"there is no problem in the {settings.split} split; raise problems.{settings.split}")
    ids = problems["id"].to_list()
    sampling = Sampling(settings.tokens, settings.temperature, work.seed)
    chunks = cut_chunks(ids, settings.samples, settings.chunk)
    done = set(work.partial.names())
    verify = settings.verify
    annotations = read_annotations(verify.annotations)
    left = sum(len(chunk) for chunk in chunks if _shard(chunk.index) not in done)
    total = len(ids) * settings.samples
    with (
        open_engine(settings.engine, work.inputs["policy"], work.device) as (engine, tokenizer),
        VerifierPool(verify.workers, verify.timeout, verify.memory) as pool,
        progress(f"evaluate {settings.split}", total, "answers", total - left) as advance,
    ):
        encoded = encode_prompts(tokenizer, problems["prompt"].to_list(), settings.chat_template)
        prompts = dict(zip(ids, encoded, strict=True))
        for chunk in chunks:
            if _shard(chunk.index) in done:
                continue
            policy = work.keys["policy"]
            rollouts = engine.generate(chunk, prompts, sampling, step=_STEP, policy=policy, progress=advance)
            verdicts = verify_rollouts(rollouts, problems, tokenizer, pool, annotations=annotations)
            write_table(work.partial, _shard(chunk.index), _count(rollouts, verdicts, tokenizer), Shard)
    shards = pl.concat([read_table(work.partial, _shard(chunk.index), Shard) for chunk in chunks])
    counts = _merge(shards, problems)
    write_table(work.out, "counts.parquet", counts, Counts)
    examples = shards.filter(pl.col("example").is_not_null()).select("problem_id", "example", "example_verdict")
    examples.write_parquet(work.out / "examples.parquet")
    return {"rows": len(counts), "metrics": _describe(counts)}


def _shard(index: int) -> str:
    return f"counts-{index:05d}.parquet"


def _count(rollouts: pl.DataFrame, verdicts: pl.DataFrame, tokenizer: Any) -> pl.DataFrame:
    rows = pl.concat([rollouts, verdicts.select("verdict", "reason")], how="horizontal").with_columns(
        # An answer that reached the limit did not end: wrong here, whatever was found in it.
        verdict=pl.when(pl.col("truncated") & (pl.col("verdict") == "correct"))
        .then(pl.lit("wrong"))
        .otherwise(pl.col("verdict").cast(pl.String)),
        tokens=pl.col("response_ids").list.len().cast(pl.Int64),
        logprob=pl.col("logprobs").list.eval(pl.element().cast(pl.Float64)).list.sum(),
    )
    counted = rows.group_by("problem_id", maintain_order=True).agg(
        n=pl.len().cast(pl.Int32),
        correct=(pl.col("verdict") == "correct").sum().cast(pl.Int32),
        wrong=(pl.col("verdict") == "wrong").sum().cast(pl.Int32),
        unverifiable=(pl.col("verdict") == "unverifiable").sum().cast(pl.Int32),
        truncated=pl.col("truncated").sum().cast(pl.Int32),
        missing=(pl.col("reason") == "missing").sum().cast(pl.Int32),
        tokens=pl.col("tokens").sum(),
        logprob=pl.col("logprob").sum(),
    )
    right = rows.filter(pl.col("verdict") == "correct").select(
        "problem_id",
        answer=pl.col("response_ids").map_elements(lambda ids: _digest(ids.to_list()), return_dtype=pl.String),
    )
    answers = right.group_by("problem_id").agg(right_answers=pl.col("answer").unique().sort())
    first = rows.filter(pl.col("sample") == 0)
    texts = tokenizer.batch_decode(first["response_ids"].to_list(), skip_special_tokens=True)
    examples = first.select("problem_id", example=pl.Series(texts, dtype=pl.String), example_verdict="verdict")
    return (
        counted.join(answers, on="problem_id", how="left", maintain_order="left")
        .join(examples, on="problem_id", how="left", maintain_order="left")
        .with_columns(pl.col("right_answers").fill_null([]))
    )


def _digest(ids: list[int]) -> str:
    return hashlib.blake2b(",".join(map(str, ids)).encode(), digest_size=8).hexdigest()


def _merge(shards: pl.DataFrame, problems: pl.DataFrame) -> pl.DataFrame:
    sums = ("n", "correct", "wrong", "unverifiable", "truncated", "missing", "tokens", "logprob")
    merged = shards.group_by("problem_id", maintain_order=True).agg(
        *(pl.col(name).sum() for name in sums),
        distinct_correct=pl.col("right_answers").explode().drop_nulls().n_unique().cast(pl.Int32),
    )
    return merged.join(
        problems.select(pl.col("id").alias("problem_id"), "set"), on="problem_id", how="left", maintain_order="left"
    )


def _describe(counts: pl.DataFrame) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for (name,), rows in counts.group_by("set", maintain_order=True):
        verified = rows["correct"] + rows["wrong"]
        metrics[f"eval/{name}/pass_at_1"] = float((rows["correct"] / verified).mean() or 0.0)  # type: ignore[arg-type]
        metrics[f"eval/{name}/entropy"] = -float(rows["logprob"].sum()) / max(1, int(rows["tokens"].sum()))
        metrics[f"eval/{name}/distinct_correct"] = float(rows["distinct_correct"].mean())  # type: ignore[arg-type]
        metrics[f"eval/{name}/unverifiable_share"] = float(rows["unverifiable"].sum()) / int(rows["n"].sum())
        metrics[f"eval/{name}/truncated_share"] = float(rows["truncated"].sum()) / int(rows["n"].sum())
    return metrics
