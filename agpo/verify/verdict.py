"""The verdict: correct, wrong or unverifiable, with its cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier decided about one response.

    ``unverifiable`` means that the verifier could not decide; such a rollout leaves loss, group baseline and pass@k,
    because a negative-dominant objective would amplify a false "wrong". ``cause`` says whose fault it was.
    """

    verdict: Literal["correct", "wrong", "unverifiable"]
    cause: Literal["none", "response", "gold", "infrastructure"] = "none"
    reason: str = ""  # empty when correct; else missing, malformed, mismatch, unreadable, timeout, memory, crash, …
    extracted: str | None = None  # the final answer found in the response
    seconds: float = 0.0  # CPU seconds spent
    verifier: str = ""
    version: int = 0

    @property
    def correct(self) -> bool:
        return self.verdict == "correct"
