"""Stage: query–ad pairs → labels, by the votes of a teacher."""

from __future__ import annotations

import time
from typing import Any

from agpo.artifacts import Files
from agpo.artifacts.table import read_table, write_table
from agpo.problems import encode_prompts
from agpo.progress import progress
from agpo.records import Labels
from agpo.relevance.answers import Answers, make_labels, read_votes
from agpo.relevance.pair_shards import PairShards
from agpo.relevance.scheme import find_scheme
from agpo.relevance.summary import summarise_labels
from agpo.rollout import Sampling, cut_chunks
from agpo.rollout.engines import open_engine
from agpo.settings import Labelling
from agpo.stages import Work

_STEP = -2  # of the random numbers: neither training nor evaluation has it


def label(settings: Labelling, work: Work) -> dict[str, Any]:
    """Write ``labels-….parquet`` (`records.Labels`) and ``rollouts-….parquet`` (`Answers`), one of each a shard.

    Beside them what `summarise_labels` writes. The answers of a shard are durable before the next one starts, so a
    killed labelling goes on with the first shard that has none. Of pairs and answers memory holds a shard.
    """
    shards = PairShards(work.inputs["pairs"] / "pairs.parquet", settings.split, settings.shard)
    if not shards.pairs:
        remedy = "label.path = a file of pairs" if settings.split == "unlabelled" else f"more problems.{settings.split}"
        raise ValueError(f"there is no pair in the {settings.split} split to label; give {remedy}")
    scheme = find_scheme(settings.scheme)
    sampling = Sampling(settings.tokens, settings.temperature, work.seed)
    done = set(work.partial.names())
    found = sum(shards.count(index) for index in range(len(shards)) if _answers_file(index) in done)
    tokens, started = 0, time.process_time()
    with (
        open_engine(settings.engine, work.inputs["policy"], work.device) as (engine, tokenizer),
        progress(f"label {settings.split}", shards.pairs, "pairs", found) as advance,
    ):
        for index, pairs in enumerate(shards):
            if _labels_file(index) in done:
                continue
            encoded = encode_prompts(tokenizer, pairs["prompt"].to_list(), settings.chat_template)
            prompts = dict(zip(pairs["id"], encoded, strict=True))
            if _answers_file(index) in done:
                answers = read_table(work.partial, _answers_file(index), Answers)
            else:
                (chunk,) = cut_chunks(list(prompts), settings.samples, len(prompts) * settings.samples)
                rollouts = engine.generate(chunk, prompts, sampling, step=_STEP, policy=work.keys["policy"])
                answers = read_votes(rollouts, tokenizer, scheme)
                write_table(work.partial, _answers_file(index), answers, Answers)
                tokens += int(answers["response_ids"].list.len().sum())
                advance(len(pairs))
            labels = make_labels(pairs, answers, prompts, scheme, settings.temperature, _answers_file(index))
            write_table(work.partial, _labels_file(index), labels, Labels)
    spent = time.process_time() - started
    for index in range(len(shards)):
        for name in (_labels_file(index), _answers_file(index)):
            _hand_over(work.partial, name, Files(work.out))
    metrics = summarise_labels(work.out, scheme, settings.audit)
    if tokens:
        metrics["cost/tokens_per_cpu_second"] = tokens / spent
    return {"rows": shards.pairs, "metrics": metrics}


def _labels_file(index: int) -> str:
    return f"labels-{index:05d}.parquet"


def _answers_file(index: int) -> str:
    return f"rollouts-{index:05d}.parquet"


def _hand_over(partial: Files, name: str, out: Files) -> None:
    if partial.local:
        out.copy(partial.local_path(name), name, link=True)
    else:
        partial.download(name, out.local_path(name))
