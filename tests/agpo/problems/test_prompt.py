from __future__ import annotations

import hashlib
import re

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from agpo.problems import encode_prompts, render_prompt, template_digest
from agpo.problems.prompt import chat_template_names, prompt_names, template_text


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<bos>", "<unk>", "1", "2", "[user]", "[end]", "<|im_start|>user", "1<|im_end|>", "<|im_start|>assistant"]
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, bos_token="<bos>", unk_token="<unk>"
    )


def test_names_carry_versions_and_prompts_a_place_for_the_question() -> None:
    assert {"plain-v1", "math-boxed-v1"} <= set(prompt_names())
    assert "chatml-v1" in chat_template_names()
    assert all(re.fullmatch(r"[a-z0-9-]+-v\d+", name) for name in prompt_names() + chat_template_names())
    assert all(template_text(name).count("{question}") == 1 for name in prompt_names())


# A template whose text changes gets another name: rows and policies made with the old one must stay what they are.
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain-v1", "{question}"),
        (
            "math-boxed-v1",
            "{question}\nPlease reason step by step, and put your final answer within \\boxed{}.",
        ),
    ],
)
def test_published_prompts_stay(name: str, text: str) -> None:
    assert template_text(name) == text
    assert template_digest(name) == hashlib.sha256(text.encode()).hexdigest()


def test_questions_are_taken_as_they_are() -> None:
    assert render_prompt("plain-v1", "{0} {question.__class__} %s \\1") == "{0} {question.__class__} %s \\1"
    assert render_prompt("math-boxed-v1", "1 + 1?").startswith("1 + 1?\n")


@pytest.mark.parametrize("name", ["nonsense-v1", "../prompt", "plain-v1.txt", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"prompts: math-boxed-v1, plain-v1, .*; chat templates: chatml-v1"):
        template_digest(name)


def test_bare_prompts_get_the_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode_prompts(tokenizer, ["1", "2 1"], "none") == [[0, 2], [0, 3, 2]]


def test_the_model_s_own_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} [end] {% endfor %}"
    assert encode_prompts(tokenizer, ["1", "2 1"], "model") == [[4, 2, 5], [4, 3, 2, 5]]


def test_a_named_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "unused"
    assert encode_prompts(tokenizer, ["1"], "chatml-v1") == [[6, 7, 8]]
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1"}],
        chat_template=template_text("chatml-v1"),
        add_generation_prompt=True,
        tokenize=False,
    )
    assert rendered == "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n"


def test_a_tokenizer_that_truncates_and_pads_does_not_here(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=5)
    assert encode_prompts(tokenizer, ["1", "2 1"], "none") == [[0, 2], [0, 3, 2]]


@pytest.mark.parametrize(
    ("template", "message"),
    [("model", "the model's tokenizer has no chat template"), ("alpaca-v1", "accepted: none, model, chatml-v1")],
)
def test_a_template_that_does_not_exist_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode_prompts(tokenizer, ["1"], template)
