"""A small BERT that compares the two texts of a pair word by word before its first layer.

Each word attends to the words of the other text, by likeness and identity, and takes in what the two have in common
and how they differ (the alignment and comparison of Parikh et al., arXiv 1606.01933; here by learnt weights, with a
way to have no counterpart). Embeddings start as sums of character n-grams, so that misspelt and related words are
alike before any training. It is an ordinary Hugging Face class: training, serving and export need no extra step.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from agpo.settings.distil import AlignedEncoder

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 … 4; words follow
_SPREAD = 0.05  # standard deviation of initial weights
_LONGEST_GRAM = 3


class AlignedConfig(BertConfig):  # type: ignore[no-untyped-call]
    model_type = "aligned-bert"


# sentence-transformers gives a new head to a class that is not named …ForSequenceClassification.
class AlignedBertForSequenceClassification(BertForSequenceClassification):  # type: ignore[no-untyped-call]
    config_class = AlignedConfig

    def __init__(self, config: AlignedConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.project = nn.Linear(width, width, bias=False)
        self.compare = nn.Linear(2 * width, width)
        self.alignment = nn.Parameter(torch.tensor([4.0, 4.0, 1.0]))  # of likeness, identity, no counterpart
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        assert input_ids is not None and token_type_ids is not None
        return super().forward(
            inputs_embeds=self._align(input_ids, token_type_ids),
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            **options,
        )

    def _align(self, ids: Tensor, sides: Tensor) -> Tensor:
        """Embeddings [rows, length, width] with what each word's counterparts on the other side add to it."""
        words = self.bert.embeddings.word_embeddings(ids)
        keys = nn.functional.normalize(self.project(words), dim=-1)
        likeness, identity, nothing = self.alignment
        scores = likeness * (keys @ keys.transpose(1, 2)) + identity * (ids[:, :, None] == ids[:, None, :])
        is_word = ids >= len(_SPECIAL)
        other = (sides[:, :, None] != sides[:, None, :]) & is_word[:, None, :]
        scores = scores.masked_fill(~other, -1e4)
        scores = torch.cat([scores, nothing.expand(*ids.shape, 1)], dim=-1)
        counterparts = scores.softmax(-1)[:, :, :-1] @ words
        compared = self.compare(torch.cat([words * counterparts, words - counterparts], dim=-1))
        found: Tensor = words + compared * is_word[:, :, None]
        return found


AutoConfig.register("aligned-bert", AlignedConfig)
AutoModelForSequenceClassification.register(AlignedConfig, AlignedBertForSequenceClassification)


def make_aligned(
    settings: AlignedEncoder, pairs: Sequence[tuple[str, str]], labels: int, length: int, seed: int
) -> tuple[AlignedBertForSequenceClassification, PreTrainedTokenizerFast]:
    """Model and tokenizer for pairs of texts (query, ad) of at most ``length`` tokens."""
    tokenizer = _make_tokenizer((text for pair in pairs for text in pair), settings.vocabulary, length)
    torch.manual_seed(seed)
    model = AlignedBertForSequenceClassification(
        AlignedConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=settings.feed_forward,
            max_position_embeddings=length,
            num_labels=labels,  # type: ignore[call-arg]
            initializer_range=_SPREAD,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vocabulary = tokenizer.get_vocab()
    spellings = np.stack(
        [_spell(word, settings.width, seed) for word in sorted(vocabulary, key=vocabulary.__getitem__)]
    )
    with torch.no_grad():
        nn.init.eye_(model.project.weight)
        model.bert.embeddings.word_embeddings.weight.copy_(torch.from_numpy(spellings))
    return model, tokenizer


def _make_tokenizer(texts: Iterable[str], size: int, length: int) -> PreTrainedTokenizerFast:
    """Tokens are characters, the commonest words, and their beginnings and ends, into which other words are cut."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    # Not by the library's trainer, whose vocabulary differs from run to run.
    tokens = dict.fromkeys(_SPECIAL)
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    for character in _commonest(characters)[: size // 8]:
        tokens |= dict.fromkeys((character, f"##{character}"))
    tokens |= dict.fromkeys([*_commonest(words), *_commonest(_count_parts(words))])
    unknown, start, end = _SPECIAL[1:4]
    tokenizer = Tokenizer(WordPiece({token: at for at, token in enumerate(list(tokens)[:size])}, unk_token=unknown))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(token, _SPECIAL.index(token)) for token in (start, end)],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True)),
        model_max_length=length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _count_parts(words: Counter[str]) -> Counter[str]:
    """Beginnings and ends of at least two letters."""
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for length in range(2, len(word)):
            parts[word[:length]] += count
            parts[f"##{word[-length:]}"] += count
    return parts


def _commonest(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda text: (-counts[text], text))


def _spell(word: str, width: int, seed: int) -> NDArray[np.float32]:
    """Random directions of a word's character n-grams, added up, with the length of a random embedding."""
    framed = f"{word.removeprefix('##')}>" if word.startswith("##") else f"<{word}>"
    grams = [framed[at : at + n] for n in range(1, _LONGEST_GRAM + 1) for at in range(len(framed) - n + 1)]
    total = np.sum([_draw_direction(gram, width, seed) for gram in grams], axis=0)
    found: NDArray[np.float32] = (total * (_SPREAD * np.sqrt(width) / np.linalg.norm(total))).astype(np.float32)
    return found


@lru_cache(maxsize=1 << 16)
def _draw_direction(gram: str, width: int, seed: int) -> NDArray[np.float64]:
    key = np.random.SeedSequence([seed, zlib.crc32(gram.encode())])
    return np.random.Generator(np.random.Philox(key)).standard_normal(width)
