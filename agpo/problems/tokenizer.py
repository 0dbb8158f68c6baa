"""The tokenizer of Countdown texts: one token a number, operator or mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agpo.problems.countdown_game import OPERATORS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from agpo.settings import CountdownProblems


def countdown_tokenizer(settings: CountdownProblems) -> PreTrainedTokenizerFast:
    """Ids: 0 ``<pad>``, 1 ``<bos>``, 2 ``<eos>``, then the numbers 0 … ``largest``, ``+ - * /`` and ``= ; :``.

    Words are what stands between blanks; any other word is an error. Encoding with special tokens puts ``<bos>``
    first. Decoding joins words with single blanks.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", *map(str, range(settings.largest + 1)), *OPERATORS, "=", ";", ":"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", words.index("<bos>"))])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
