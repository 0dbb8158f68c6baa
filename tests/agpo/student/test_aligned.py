"""The encoder that aligns words: what its embeddings, its alignment and its padding do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from agpo.settings.distil import AlignedEncoder
from agpo.student.aligned import AlignedBertForSequenceClassification, make_aligned

SMALL = AlignedEncoder(width=32, layers=1, heads=2, feed_forward=32)
WORDS = ["sofa", "couch", "running", "runnning", "mug", "lamp", "rug", "coffee", "phone", "case", "table", "insole"]
PAIRS = [(first, f"new {second}") for first in WORDS for second in WORDS]


@pytest.fixture(scope="module")
def made() -> tuple[AlignedBertForSequenceClassification, Any]:
    model, tokenizer = make_aligned(SMALL, PAIRS, labels=3, length=16, seed=0)
    return model.eval(), tokenizer


@torch.no_grad()
def read(made: tuple[Any, Any], pairs: list[tuple[str, str]]) -> torch.Tensor:
    model, tokenizer = made
    batch = tokenizer([query for query, _ in pairs], [ad for _, ad in pairs], padding=True, return_tensors="pt")
    logits: torch.Tensor = model(**batch).logits
    return logits


def likeness(made: tuple[Any, Any], first: str, second: str) -> float:
    model, tokenizer = made
    ids = [tokenizer.convert_tokens_to_ids(word) for word in (first, second)]
    assert min(ids) >= 5
    weights = model.bert.embeddings.word_embeddings.weight.detach()[ids]
    return float(torch.nn.functional.cosine_similarity(weights[0], weights[1], dim=0))


def test_a_misspelt_word_starts_near_the_word(made: tuple[Any, Any]) -> None:
    assert likeness(made, "running", "runnning") > 0.7
    assert abs(likeness(made, "running", "sofa")) < 0.5


def test_padding_changes_nothing(made: tuple[Any, Any]) -> None:
    pairs = [("mug", "new rug"), ("running sofa lamp", "new couch case phone table")]
    together = read(made, pairs)
    torch.testing.assert_close(together[:1], read(made, pairs[:1]))
    torch.testing.assert_close(together[1:], read(made, pairs[1:]))


def test_only_the_other_text_is_aligned_with(made: tuple[Any, Any]) -> None:
    model, tokenizer = made
    batch = tokenizer(["mug"] * 2, ["mug lamp", "rug lamp"], return_tensors="pt")
    words = model.bert.embeddings.word_embeddings(batch["input_ids"])
    with torch.no_grad():
        added = model._align(batch["input_ids"], batch["token_type_ids"]) - words
    special = batch["input_ids"] < 5
    assert (added[special] == 0).all()
    assert not torch.allclose(added[0, 1], added[1, 1])  # "mug" has another counterpart
    torch.testing.assert_close(added[0, 4], added[1, 4])  # "lamp" reads the same query


def test_a_saved_model_is_found_by_transformers(made: tuple[Any, Any], tmp_path: Path) -> None:
    made[0].save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).eval()
    assert isinstance(again, AlignedBertForSequenceClassification)
    torch.testing.assert_close(read((again, made[1]), PAIRS[:9]), read(made, PAIRS[:9]), rtol=0, atol=0)


def test_the_same_seed_makes_the_same_model() -> None:
    models = [make_aligned(SMALL, PAIRS, 3, 16, seed)[0].state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(models[0][name], models[2][name])


def test_equality_is_learnt_for_words_that_were_not_trained_on() -> None:
    """What marks of identity are for: a label of matching words carries over to other words."""
    model, tokenizer = make_aligned(SMALL, PAIRS, labels=2, length=16, seed=0)
    seen, unseen = WORDS[:8], WORDS[8:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    pairs = [(first, f"new {second}") for first in seen for second in (*seen, *[first] * 7)]
    batch = tokenizer([query for query, _ in pairs], [ad for _, ad in pairs], return_tensors="pt", padding=True)
    same = torch.tensor([int(ad == f"new {query}") for query, ad in pairs])
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = [(first, f"new {second}") for first in unseen for second in unseen]
    found = read((model.eval(), tokenizer), held_out).argmax(1)
    right = found == torch.tensor([int(ad == f"new {query}") for query, ad in held_out])
    assert right.float().mean() > 0.9


def test_the_commonest_words_are_tokens_and_others_are_cut() -> None:
    pairs = [("mug", "mug mug lamp"), ("lamp", "zebra")]
    _, tokenizer = make_aligned(AlignedEncoder(vocabulary=100), pairs, labels=2, length=16, seed=0)
    assert tokenizer.tokenize("Mug lamp") == ["mug", "lamp"]
    assert tokenizer.tokenize("mugle") == ["mug", "##l", "##e"]
    assert tokenizer.tokenize("lampebra") == ["lamp", "##ebra"]  # an end of "zebra"
    assert tokenizer.tokenize("mugé") == ["mug", "##e"]  # accents are dropped
    assert tokenizer.tokenize("x") == ["[UNK]"]
    many = [(f"word{number}", "mug") for number in range(200)]
    _, tokenizer = make_aligned(AlignedEncoder(vocabulary=100), many, labels=2, length=16, seed=0)
    assert len(tokenizer) == 100
    assert tokenizer.tokenize("mug") == ["mug"]
