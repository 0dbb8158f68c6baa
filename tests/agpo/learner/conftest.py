from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from agpo.artifacts import Files
from agpo.stages import Work
from tests.agpo.learner.models import VOCABULARY

MakeWork = Callable[..., Work]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """The numbers from 0 as words, ids from 3; ``<bos>`` before a prompt."""
    words = {word: index for index, word in enumerate(["<pad>", "<bos>", "<eos>", *map(str, range(VOCABULARY - 3))])}
    backend = Tokenizer(WordLevel(words))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


@pytest.fixture
def doubling() -> pl.DataFrame:
    """A trivial mapping: every number of a prompt, twice."""
    prompts = [f"{first} {second}" for first in range(10) for second in range(10)]
    responses = [" ".join(number for number in prompt.split() for _ in range(2)) for prompt in prompts]
    return pl.DataFrame({"id": prompts, "prompt": prompts, "response": responses})


@pytest.fixture
def make_work(tmp_path: Path) -> MakeWork:
    """Work with an empty folder ``out``; the partial space is the same at every call."""

    def make(**inputs: Path) -> Work:
        out = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
        out.mkdir()
        return Work(inputs=inputs, keys={}, out=out, partial=Files(tmp_path / "partial"), seed=0, device="cpu")

    return make
