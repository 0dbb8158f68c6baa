"""The final answer in a source's gold field."""

from __future__ import annotations

from typing import Literal

GoldFormat = Literal["plain", "gsm8k", "boxed"]


def extract_gold(text: str, form: GoldFormat) -> str:
    """The final answer without surrounding blanks; empty if the text holds none in that form.

    ``plain``: the text itself. ``gsm8k``: what follows the last ``####``. ``boxed``: the content of the last
    ``\\boxed{…}`` whose braces balance.
    """
    if form == "boxed":
        from agpo.verify.extraction import last_box

        return last_box(text) or ""
    if form == "gsm8k":
        _, mark, answer = text.rpartition("####")
        return answer.strip() if mark else ""
    return text.strip()
