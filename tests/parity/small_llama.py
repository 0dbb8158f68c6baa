"""A Llama of a million parameters and a tokenizer of numbered tokens, for our side and for TRL's."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agpo.learner.policy import make_model
from agpo.settings import ModelShape

VOCABULARY = 112
NEVER = VOCABULARY  # a stop token that the model does not have


def make_tokenizer(stop: int = 2) -> Any:
    """Reads tokens apart by spaces; that of id 7 is written ``<7>``."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = {f"<{token}>": token for token in range(max(VOCABULARY, stop + 1))}
    core = Tokenizer(models.WordLevel(ids, unk_token="<3>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make: Any = import_module("transformers").PreTrainedTokenizerFast
    return make(tokenizer_object=core, pad_token="<0>", bos_token="<1>", eos_token=f"<{stop}>")


def make_llama(positions: int) -> Any:
    """In fp32, the same at every call. ``positions``: longest prompt plus response."""
    return make_model(ModelShape(width=128, feed_forward=512, layers=4, heads=4), make_tokenizer(), positions, seed=0)
