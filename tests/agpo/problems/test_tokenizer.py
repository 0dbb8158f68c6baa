from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from agpo.problems import encode_prompts
from agpo.problems.countdown import generate_countdown
from agpo.problems.tokenizer import countdown_tokenizer
from agpo.settings import CountdownProblems

SETTINGS = CountdownProblems(train=20, selection=2, confirmation=2, demonstrations=50)


def test_ids() -> None:
    tokenizer = countdown_tokenizer(SETTINGS)
    assert len(tokenizer) == 51
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.encode("3 5 7 2 : 24") == [1, 6, 8, 10, 5, 50, 27]
    assert tokenizer.encode("0 40 + - * / = ; :", add_special_tokens=False) == [3, *range(43, 51)]


def test_texts_survive_and_special_tokens_can_be_dropped() -> None:
    tokenizer = countdown_tokenizer(SETTINGS)
    problems, demonstrations = generate_countdown(SETTINGS, 0)
    for text in [*problems["prompt"], *demonstrations["response"]]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode([*ids, 2, 0, 0], skip_special_tokens=True) == text


def test_a_word_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(Exception, match="UNK"):
        countdown_tokenizer(SETTINGS).encode("3 41")


def test_the_folder_loads_as_any_other(tmp_path: Path) -> None:
    countdown_tokenizer(SETTINGS).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert encode_prompts(loaded, ["1 2 : 3", "4 : 5"], "none") == [[1, 4, 5, 50, 6], [1, 7, 50, 8]]
    assert loaded("1 2", return_tensors="np", padding=True).keys() == {"input_ids", "attention_mask"}
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.padding_side) == (0, 1, 2, "left")
