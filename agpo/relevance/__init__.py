"""Relevance of ads to queries: label schemes, labels by votes, and how good labels are."""

from typing import TYPE_CHECKING, Any

from agpo.relevance.scheme import Label, Scheme, find_scheme, read_gold, scheme_names, write_gold

if TYPE_CHECKING:
    from agpo.relevance.metrics import Interval, Labelled, LabelScores, compare_macro_f1, score_labels

__all__ = [
    "Interval",
    "Label",
    "LabelScores",
    "Labelled",
    "Scheme",
    "compare_macro_f1",
    "find_scheme",
    "read_gold",
    "scheme_names",
    "score_labels",
    "write_gold",
]


def __getattr__(name: str) -> Any:
    """The metrics load numpy; the schemes, which every verifier reads, do not need it."""
    if name in __all__:
        from agpo.relevance import metrics

        return getattr(metrics, name)
    raise AttributeError(name)
