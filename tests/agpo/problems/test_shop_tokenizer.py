from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from agpo.problems.shop import generate_shop
from agpo.problems.tokenizer import countdown_tokenizer, make_tokenizer, shop_tokenizer
from agpo.settings import CountdownProblems, ShopProblems

SETTINGS = ShopProblems(train=300, selection=10, confirmation=10, unlabelled=10, demonstrations=2000)


def test_every_text_of_the_shop_is_known_word_by_word() -> None:
    tokenizer = shop_tokenizer()
    shop = generate_shop(SETTINGS, 3)
    texts = [*shop.pairs["prompt"], *shop.demonstrations["prompt"], *shop.demonstrations["response"]]
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode([*ids, 2, 0], skip_special_tokens=True) == " ".join(text.split())


def test_other_words_are_unknown_instead_of_an_error() -> None:
    tokenizer = shop_tokenizer()
    assert tokenizer.encode("red zeppelin")[2] == tokenizer.unk_token_id == 3
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_the_source_decides() -> None:
    assert make_tokenizer(SETTINGS).get_vocab() == shop_tokenizer().get_vocab()
    puzzles = CountdownProblems(largest=50)
    assert make_tokenizer(puzzles).get_vocab() == countdown_tokenizer(puzzles).get_vocab()


def test_the_folder_loads_as_any_other(tmp_path: Path) -> None:
    shop_tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Query: red mug\nAd: mug red"
    assert loaded.encode(text) == shop_tokenizer().encode(text)
    assert loaded.encode("zeppelin") == [1, 3]


def test_the_vocabulary_is_small() -> None:
    assert 400 < len(shop_tokenizer()) < 500
