"""A query–ad pair, and the text by which a policy is asked about it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Self

_QUERY, _AD = "Query: ", "Ad: "


class Pair(NamedTuple):
    """Texts without line breaks, but for ``attributes``: lines "key: value", or empty."""

    query: str
    title: str
    attributes: str = ""

    @property
    def query_id(self) -> str:
        """The same for all pairs of a query, whatever its case and spacing."""
        return f"query-{_digest(' '.join(self.query.casefold().split()))}"

    @property
    def id(self) -> str:
        return f"pair-{_digest(self.render())}"

    def render(self) -> str:
        return f"{_QUERY}{self.query}\n{_AD}{self.title}" + (f"\n{self.attributes}" if self.attributes else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The pair that `render` wrote."""
        query, title, *attributes = text.split("\n", 2)
        return cls(query.removeprefix(_QUERY), title.removeprefix(_AD), *attributes)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
