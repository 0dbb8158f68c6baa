"""Where an encoder starts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from agpo.learner.policy import load_policy
from agpo.settings.distil import BaseEncoder, FolderEncoder
from agpo.student.encoder import rendering_of, start_encoder
from agpo.student.examples import Examples, read_judged
from tests.agpo.student.labelled_shop import SCHEME, TINY
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def examples(problems: Path) -> Examples:
    return read_judged(problems, SCHEME)["train"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def test_the_base_gives_its_body_and_reads_the_policys_text(base: Path, examples: Examples, tmp_path: Path) -> None:
    start_encoder(BaseEncoder(), examples, 256, {"base": base}, 0, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True)
    policy, _ = load_policy(base, "cpu")
    assert torch.equal(model.model.embed_tokens.weight, policy.model.embed_tokens.weight)
    assert model.config.num_labels == 4
    assert examples.render(rendering_of(BaseEncoder()))[0][0].startswith("Query: ")


@torch.no_grad()
def test_the_head_of_a_base_reads_the_last_token_whatever_the_padding(
    base: Path, examples: Examples, tmp_path: Path
) -> None:
    start_encoder(BaseEncoder(), examples, 256, {"base": base}, 0, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    texts = ["Query: mug\nAd: a much longer title", "Query: mug"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    assert batch["attention_mask"][1].tolist()[-1] == 0
    alone = model(**tokenizer(texts[1:], return_tensors="pt"))
    torch.testing.assert_close(model(**batch).logits[1:], alone.logits)


def test_a_head_is_the_same_for_the_same_seed(base: Path, examples: Examples, tmp_path: Path) -> None:
    for name in ("first", "second"):
        start_encoder(FolderEncoder(path=str(base)), examples, 64, {}, 5, tmp_path / name)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_without_a_base_its_encoder_is_refused(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind base needs the base policy"):
        start_encoder(BaseEncoder(), examples, 64, {}, 0, tmp_path)


def test_a_folder_that_is_no_model_is_refused_by_its_setting(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"distil\.encoders\.path: .*no config\.json"):
        start_encoder(FolderEncoder(path=str(tmp_path)), examples, 64, {}, 0, tmp_path / "start")


def test_more_tokens_than_a_folder_reads_are_refused(base: Path, examples: Examples, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(base)
    with pytest.raises(ValueError, match=r"distil\.length = 64 is more than .* reads: 32 tokens"):
        start_encoder(FolderEncoder(path=str(base)), examples, 64, {}, 0, tmp_path)


def test_a_scratch_encoder_is_the_size_that_was_asked_for(examples: Examples, tmp_path: Path) -> None:
    (encoder,) = TINY.encoders
    start_encoder(encoder, examples, 48, {}, 0, tmp_path)
    import agpo.student.aligned  # noqa: F401  registers the class

    config = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).config
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (16, 1, 48)
