"""The learner: one optimiser step from rollouts and verdicts, warm start, weight interpolation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agpo.learner.logprobs import chunked_logprobs

__all__ = ["chunked_logprobs"]


def __getattr__(name: str) -> Any:
    """What loads torch is imported when it is asked for: planning a run needs this package, but no torch."""
    if name == "chunked_logprobs":
        from agpo.learner.logprobs import chunked_logprobs

        return chunked_logprobs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
