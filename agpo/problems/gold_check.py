"""Source rows whose gold the verifier cannot read: said when they are prepared, not when their answers are verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agpo.problems.gold import extract_gold
from agpo.problems.reader import SourceRow
from agpo.problems.table import BadField, read_text
from agpo.settings import RowProblems
from agpo.verify.registry import find_verifier


def check_golds(rows: Iterable[SourceRow], settings: RowProblems) -> Iterator[SourceRow]:
    """The rows; one whose gold is text that the verifier cannot read gets the reason why instead of a value.

    What in-process checks do not find, as that computer algebra cannot parse a gold, only verification shows. Raises
    ModuleNotFoundError where the verifier's library is not installed.
    """
    for row in rows:
        bad = None if row.reason else _find_fault(row, settings)
        yield SourceRow(row.source, row.number, None, row.content, bad.reason, bad.detail) if bad else row


def _find_fault(row: SourceRow, settings: RowProblems) -> BadField | None:
    field = settings.fields.gold
    try:
        gold = extract_gold(read_text(row.value, field), settings.gold_format)
    except BadField as bad:
        return bad
    if not gold:
        return None  # an empty one has a reason of its own
    verifier = find_verifier(settings.verifier)
    verdict = verifier.decide("", gold)
    if verdict is None or verdict.verdict != "unverifiable":
        return None
    if verdict.cause == "infrastructure":
        if verdict.reason != "absent":
            raise RuntimeError(f"problems.verifier = {settings.verifier!r} cannot read golds: {verdict.reason}")
        raise ModuleNotFoundError(
            f"problems.verifier = {settings.verifier!r}: its library is not installed; "
            f"accepted: an environment with the extra agpo[{settings.verifier}]"
        )
    return BadField(f"{verdict.reason} gold", f"field {field} holds {gold[:80]!r}; accepted: {verifier.golds}")
