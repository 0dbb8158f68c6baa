"""Tokenizers of generated problems: one token a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agpo.problems.countdown_game import OPERATORS
from agpo.problems.shop.answers import answer_words
from agpo.problems.shop.wording import surface_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from agpo.settings import CountdownProblems, GeneratedProblems

_SPECIAL = ("<pad>", "<bos>", "<eos>")


def make_tokenizer(settings: GeneratedProblems) -> PreTrainedTokenizerFast:
    """The tokenizer of a generated source's texts, for a model from scratch."""
    return countdown_tokenizer(settings) if settings.source == "countdown" else shop_tokenizer()


def countdown_tokenizer(settings: CountdownProblems) -> PreTrainedTokenizerFast:
    """Ids: 0 ``<pad>``, 1 ``<bos>``, 2 ``<eos>``, then the numbers 0 … ``largest``, ``+ - * /`` and ``= ; :``.

    Words are what stands between blanks; any other word is an error. Encoding with special tokens puts ``<bos>``
    first. Decoding joins words with single blanks.
    """
    return _word_tokenizer([*_SPECIAL, *map(str, range(settings.largest + 1)), *OPERATORS, "=", ";", ":"])


def shop_tokenizer() -> PreTrainedTokenizerFast:
    """As `countdown_tokenizer`, for the words of answers, queries and ads; any other word is ``<unk>``, id 3."""
    words = [*_SPECIAL, "<unk>", "Query:", "Ad:", *answer_words(), *surface_words()]
    return _word_tokenizer(list(dict.fromkeys(words)), unknown="<unk>")


def _word_tokenizer(words: Sequence[str], unknown: str | None = None) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(words)}
    named = {"unk_token": unknown} if unknown else {}
    tokenizer = Tokenizer(WordLevel(vocabulary, **named))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", words.index("<bos>"))])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        **named,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
