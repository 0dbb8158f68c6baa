"""Verification: three verdicts with a cause, killable workers, math and number puzzles."""

from agpo.verify.countdown import verify_countdown
from agpo.verify.math import verify_math
from agpo.verify.pool import Item, VerifierPool
from agpo.verify.verdict import Verdict

__all__ = ["Item", "Verdict", "VerifierPool", "verify_countdown", "verify_math"]
