"""A teacher for tests that votes at random: its answers are a letter of the ESCI scheme, or an x."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from agpo.artifacts import Files
from agpo.artifacts.table import write_table
from agpo.learner.policy import load_policy, save_policy
from agpo.problems.pair import Pair
from agpo.records import Pairs
from agpo.settings import Labelling
from agpo.stages import Work
from tests.tiny_model import write_tiny_model

SETTINGS = Labelling(
    split="unlabelled", scheme="esci4", samples=6, temperature=1.0, shard=4, audit=3, tokens=2, chat_template="none"
)


def write_voter(folder: Path) -> Path:
    """A Llama without attention whose next token depends on the last one only: letter, then end or a blank."""
    model, tokenizer = load_policy(write_tiny_model(folder), "cpu")
    answers = torch.tensor([tokenizer.convert_tokens_to_ids(text) for text in ("E", "S", "C", "I", "x")])
    blank, end = tokenizer.convert_tokens_to_ids("Ġ"), tokenizer.eos_token_id
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.zero_()
        head.zero_()
        embeddings[:, 0] = 1.0
        embeddings[answers] = 0.0
        embeddings[answers, 1] = 1.0
        head[answers, 0] = 3.0
        head[end, 1], head[blank, 1] = 3.0, 2.7
    save_policy(model, tokenizer, folder)
    return folder


def make_pairs(count: int, gold: str | None = "esci4:S") -> pl.DataFrame:
    """Unlabelled pairs, two a query, every other one with gold; and one pair of the train split between them."""
    rows = []
    for number in range(count):
        pair = Pair(f"mug {number // 2}", f"Mug number {number}", "brand: Acme\ncolor: red" if number % 3 else "")
        case = ["near_miss", None][number % 4 // 2]
        split = "train" if number == 1 else "unlabelled"
        known = gold if number % 2 == 0 else None
        rows.append((pair.id, pair.query_id, *pair, pair.render(), known, split, case))
    return pl.DataFrame(rows, schema=Pairs.create_empty().schema, orient="row")


def open_work(folder: Path, policy: Path, pairs: pl.DataFrame) -> Work:
    for name in ("pairs", "out"):
        (folder / name).mkdir(parents=True)
    write_table(folder / "pairs", "pairs.parquet", pairs, Pairs)
    return Work(
        inputs={"policy": policy, "pairs": folder / "pairs"},
        keys={"policy": "a" * 64, "pairs": "b" * 64},
        out=folder / "out",
        partial=Files(folder / "partial"),
        seed=0,
        device="cpu",
    )


def open_again(work: Work) -> Work:
    """The next attempt: an empty output, the same partial work."""
    out = work.out.with_name("out-again")
    out.mkdir()
    return replace(work, out=out)


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
