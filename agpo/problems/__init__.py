"""Problems: generated or from rows, their prompts, and the batch of a step."""

from agpo.problems.batch import select_problems, select_refill
from agpo.problems.prompt import encode_prompts, encode_texts, render_prompt, template_digest
from agpo.problems.source import source_digests

__all__ = [
    "encode_prompts",
    "encode_texts",
    "render_prompt",
    "select_problems",
    "select_refill",
    "source_digests",
    "template_digest",
]
