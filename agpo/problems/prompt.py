"""Prompts and chat templates: named, versioned text files, and the token ids that they give."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROMPTS = Path(__file__).parent / "prompts"
_CHAT_TEMPLATES = Path(__file__).parent / "chat_templates"


def prompt_names() -> list[str]:
    return sorted(path.stem for path in _PROMPTS.glob("*.txt"))


def chat_template_names() -> list[str]:
    return sorted(path.stem for path in _CHAT_TEMPLATES.glob("*.jinja"))


@cache
def template_text(name: str) -> str:
    """The prompt or chat template of that name; ValueError with the known names if there is none."""
    if name in prompt_names():
        return (_PROMPTS / f"{name}.txt").read_text(encoding="utf-8").removesuffix("\n")
    if name in chat_template_names():
        return (_CHAT_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    raise ValueError(
        f"no template is named {name!r}; prompts: {', '.join(prompt_names())}; "
        f"chat templates: {', '.join(chat_template_names())}"
    )


def template_digest(name: str) -> str:
    """SHA-256 of a named prompt or chat template, for the key of what is made with it."""
    return hashlib.sha256(template_text(name).encode()).hexdigest()


def render_prompt(name: str, question: str) -> str:
    """The question in the named prompt. Plain replacement: braces in either text mean nothing."""
    return template_text(name).replace("{question}", question)


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], chat_template: str) -> list[list[int]]:
    """Token ids of each prompt as one user turn that the policy continues.

    ``chat_template``: ``none`` encodes the bare text with the tokenizer's special tokens; ``model`` uses the
    tokenizer's own template (ValueError if it has none); any other name a template file of this package.
    """
    if chat_template == "none":
        return encode_texts(tokenizer, prompts, special_tokens=True)
    if chat_template == "model" and not tokenizer.chat_template:
        raise ValueError(
            "rollout.chat_template = 'model', but the model's tokenizer has no chat template; "
            f"accepted: none, {', '.join(chat_template_names())}"
        )
    if chat_template != "model" and chat_template not in chat_template_names():
        raise ValueError(
            f"rollout.chat_template = {chat_template!r}; accepted: none, model, {', '.join(chat_template_names())}"
        )
    texts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        chat_template=None if chat_template == "model" else template_text(chat_template),
        add_generation_prompt=True,
        tokenize=False,
    )
    return encode_texts(tokenizer, cast("list[str]", texts), special_tokens=False)


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special_tokens: bool) -> list[list[int]]:
    """Token ids of many texts. A fast tokenizer is asked directly, which halves the time of its general call."""
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()  # a tokenizer's file may ask for either
        backend.no_padding()
        found = backend.encode_batch_fast(list(texts), add_special_tokens=special_tokens)
        return [encoding.ids for encoding in found]
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=special_tokens)["input_ids"]
    return encoded
