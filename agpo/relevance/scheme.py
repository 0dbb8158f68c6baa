"""Label schemes: which grades of relevance there are, how they are written, and what they are worth.

``esci4`` are Amazon's grades with the gains of its reference code (amazon-science/esci-data); ``lref5`` those of JD's
search as LREF (arXiv 2503.09223) names them. The other gains and all binary gates are our choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

_WHOLE = re.compile(r"(\d+)\.0+", re.ASCII)
_JOINT = re.compile(r"(?<=[a-z])[-_](?=[a-z])")


@dataclass(frozen=True, slots=True)
class Label:
    letter: str
    name: str
    gain: float  # for NDCG and expected relevance, 0 … 1
    relevant: bool  # whether the binary gate lets the ad pass
    other: tuple[str, ...] = ()  # further spellings


@dataclass(frozen=True)
class Scheme:
    """Labels from least to most relevant: a label's level is its place, from 0."""

    name: str
    labels: tuple[Label, ...]
    _spellings: dict[str, Label] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spellings: dict[str, Label] = {}
        for level, label in enumerate(self.labels):
            for spelling in (label.letter, label.name, str(level), *label.other):
                if spellings.setdefault(_normalise(spelling), label) is not label:
                    raise ValueError(f"scheme {self.name}: {spelling!r} stands for two labels")
            spellings[label.letter] = label
        object.__setattr__(self, "_spellings", spellings)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def read(self, text: str) -> Label | None:
        """The label that a letter, name or level stands for, whatever its case; None for any other text."""
        return self._spellings.get(text) or self._spellings.get(_normalise(text))

    def level(self, label: Label) -> int:
        return self.labels.index(label)

    @property
    def accepted(self) -> str:
        """The labels from most to least relevant, with all that `read` accepts but further spellings."""
        levels = range(len(self.labels) - 1, -1, -1)
        return ", ".join(f"{self.labels[level].letter} ({self.labels[level].name}, {level})" for level in levels)


def _normalise(text: str) -> str:
    spelled = _JOINT.sub(" ", " ".join(text.casefold().split()))
    whole = _WHOLE.fullmatch(spelled)
    return whole.group(1) if whole else spelled


_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "binary",
            (
                Label("I", "irrelevant", 0.0, False, ("no", "false", "not relevant")),
                Label("R", "relevant", 1.0, True, ("yes", "true")),
            ),
        ),
        Scheme(
            "ads3",
            (
                Label("I", "irrelevant", 0.0, False, ("not relevant",)),
                Label("P", "partial", 0.5, True, ("partially relevant",)),
                Label("R", "relevant", 1.0, True, ("fully relevant",)),
            ),
        ),
        Scheme(
            "esci4",
            (
                # 1, 10 and 100 are how ratings files write C, S and E; 1 is the level of C too.
                Label("I", "irrelevant", 0.0, False),
                Label("C", "complement", 0.01, False),
                Label("S", "substitute", 0.1, True, ("10",)),
                Label("E", "exact", 1.0, True, ("100", "exact match")),
            ),
        ),
        Scheme(
            "lref5",
            (
                Label("I", "irrelevant", 0.0, False),
                Label("T", "trivial", 0.25, False),
                Label("M", "marginal", 0.5, False),
                Label("S", "significant", 0.75, True),
                Label("E", "exact", 1.0, True),
            ),
        ),
    )
}


def scheme_names() -> list[str]:
    return list(_SCHEMES)


def find_scheme(name: str) -> Scheme:
    """The scheme of that name; ValueError with the known names if there is none."""
    scheme = _SCHEMES.get(name)
    if scheme is None:
        raise ValueError(f"{name!r} is not a label scheme; accepted: {', '.join(_SCHEMES)}")
    return scheme


def write_gold(scheme: Scheme, label: Label) -> str:
    """A problem's gold for the verifier ``label``, such as ``esci4:S``."""
    return f"{scheme.name}:{label.letter}"


@lru_cache(maxsize=256)
def read_gold(gold: str) -> tuple[Scheme, Label] | None:
    """Scheme and label of a gold ``scheme:label``; None where either is unknown."""
    name, _, text = gold.strip().partition(":")
    scheme = _SCHEMES.get(name)
    label = scheme.read(text) if scheme else None
    return (scheme, label) if scheme and label else None
