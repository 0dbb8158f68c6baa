from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from transformers import PreTrainedTokenizerFast

from agpo.learner import pairs
from agpo.learner.pairs import encode_pairs

ROWS = pl.DataFrame({"prompt": ["1", "2 3", "4 5 6", "7"], "response": ["8 9", "1", "", "2 3 4 5"]})
ENCODED = [([1, 4], [11, 12, 2]), ([1, 5, 6], [4, 2]), ([1, 7, 8, 9], [2]), ([1, 10], [5, 6, 7, 8, 2])]


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_rows_are_prompt_response_and_end_token(
    block: int, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_BLOCK", block)
    encoded = encode_pairs(tokenizer, ROWS, "none")
    assert len(encoded) == 4
    for rows in ([0], [3, 0], [1, 2, 3, 0], [2, 2]):
        ids, chosen = encoded.pad(np.array(rows))
        longest = max(len(prompt) + len(response) for prompt, response in (ENCODED[row] for row in rows))
        for row, its_ids, its_chosen in zip(rows, ids, chosen, strict=True):
            prompt, response = ENCODED[row]
            padding = longest - len(prompt) - len(response)
            assert its_ids.tolist() == prompt + response + [0] * padding
            assert its_chosen.tolist() == [False] * len(prompt) + [True] * len(response) + [False] * padding


def test_prompts_go_through_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{% for message in messages %}9 {{ message.content }} 9{% endfor %}"
    ids, chosen = encode_pairs(tokenizer, ROWS, "model").pad(np.array([1]))
    assert ids[~chosen].tolist() == [12, 5, 6, 12]


def test_no_row_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"base\.training: the training problems have no answer to learn from"):
        encode_pairs(tokenizer, ROWS.clear(), "none")
