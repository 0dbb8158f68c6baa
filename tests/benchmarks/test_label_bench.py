"""Tokens per CPU-second of the label stage against the bare sampler: same policy, pairs, chunks and random numbers.

Both run in this process on one thread, in turn, and give the same tokens. The policy has the shop's size and some
supervised steps, so that its answers end where answers do.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agpo.artifacts import Files
from agpo.learner.pairs import encode_pairs
from agpo.learner.policy import load_policy, make_model, save_policy, stop_ids
from agpo.learner.supervised import train_supervised
from agpo.problems import encode_prompts
from agpo.problems.shop import generate_shop
from agpo.problems.tokenizer import shop_tokenizer
from agpo.relevance.label import label
from agpo.rollout.decoder import make_decoder
from agpo.rollout.randomness import Uniforms
from agpo.rollout.sampler import sample_answers
from agpo.settings import Labelling, ModelShape, ShopProblems, Supervised
from agpo.stages import Work

PAIRS, REPEATS = 6000, 2  # as many pairs as the shop has
SHOP = ShopProblems(train=1, selection=1, confirmation=1, unlabelled=PAIRS, demonstrations=20_000)
SETTINGS = Labelling(
    split="unlabelled",
    scheme="esci4",
    samples=8,
    temperature=1.0,
    shard=512,
    audit=200,
    tokens=23,
    chat_template="none",
)


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
def test_label_against_the_sampler(tmp_path: Path) -> None:
    _write_inputs(tmp_path)
    stage, bare = [], []
    for _ in range(REPEATS):
        tokens, seconds = _label(tmp_path)
        stage.append(seconds)
        sampled, seconds = _sample(tmp_path)
        bare.append(seconds)
        assert sampled == tokens
    rates = [tokens / min(seconds) for seconds in (stage, bare)]
    print(
        f"\n{PAIRS} pairs × {SETTINGS.samples} answers, {tokens:,.0f} tokens: stage {rates[0]:,.0f} and sampler "
        f"{rates[1]:,.0f} tokens per CPU-second, ratio {rates[0] / rates[1]:.2f}"
    )
    assert rates[0] >= 0.85 * rates[1]


def _write_inputs(folder: Path) -> None:
    shop, tokenizer = generate_shop(SHOP, 0), shop_tokenizer()
    pairs = encode_pairs(tokenizer, shop.demonstrations, SETTINGS.chat_template)
    model = make_model(ModelShape(heads=4), tokenizer, positions=int(pairs.prompts.max()) + SETTINGS.tokens, seed=0)
    train_supervised(model, tokenizer, pairs, Supervised(steps=150, warm_up=20), 0, Files(folder / "training"))
    for name in ("policy", "pairs"):
        (folder / name).mkdir()
    save_policy(model, tokenizer, folder / "policy")
    shop.pairs.write_parquet(folder / "pairs/pairs.parquet")


def _label(folder: Path) -> tuple[int, float]:
    """Tokens and CPU-seconds of the whole stage: reading, sampling, votes, tables, figures."""
    for name in ("out", "partial"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "out").mkdir()
    work = Work(
        inputs={name: folder / name for name in ("policy", "pairs")},
        keys={"policy": "0" * 64, "pairs": "1" * 64},
        out=folder / "out",
        partial=Files(folder / "partial"),
        seed=0,
        device="cpu",
    )
    started = time.process_time()
    made = label(SETTINGS, work)
    return int(made["metrics"]["label/tokens"]), time.process_time() - started


def _sample(folder: Path) -> tuple[int, float]:
    """Tokens and CPU-seconds of `sample_answers` alone on the stage's chunks."""
    model, tokenizer = load_policy(folder / "policy", "cpu")
    pairs = pl.read_parquet(folder / "pairs/pairs.parquet").filter(pl.col("split") == "unlabelled")
    decoder, stops = make_decoder(model), stop_ids(model, tokenizer)
    tokens, seconds = 0, 0.0
    for shard in pairs.iter_slices(SETTINGS.shard):
        prompts = encode_prompts(tokenizer, shard["prompt"].to_list(), SETTINGS.chat_template)
        rows = np.repeat(np.arange(len(shard)), SETTINGS.samples)
        ids, samples = shard["id"].gather(rows).to_list(), list(range(SETTINGS.samples)) * len(shard)
        started = time.process_time()
        found = sample_answers(
            decoder,
            prompts,
            rows,
            Uniforms(0, -2, ids, samples),
            tokens=SETTINGS.tokens,
            temperature=SETTINGS.temperature,
            stops=stops,
        )
        seconds += time.process_time() - started
        tokens += int(found.lengths.sum())
    return tokens, seconds
