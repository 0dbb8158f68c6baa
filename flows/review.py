"""People's decisions about answers that two verifiers read differently."""

from __future__ import annotations

from pathlib import Path

from agpo.verify.review import export_disagreements, import_decisions
from tasks.location import open_store

_JOURNALED = "journal/*/steps/*/disagreements.parquet"


def export(target: Path) -> str:
    """Write the disagreements of all training runs in the store to a CSV file; a sentence about it."""
    count = export_disagreements(_find_disagreements(), target)
    if not count:
        return "Nothing to decide: no training run has answers that the audit reads differently; nothing was written"
    return f"{count} answers to decide are in {target}: fill in the column decision (correct or wrong)"


def import_(decisions: Path, target: Path) -> str:
    """Add a CSV file's decisions to the annotations in ``target``; a sentence about it."""
    version, counts = import_decisions(decisions, _find_disagreements(), target)
    return (
        f"{counts['decided']} answers decided, {counts['undecided']} not; {counts['general']} hold for later verdicts. "
        f"Use them with --set verify.annotations={target} (version {version[:12]})"
    )


def _find_disagreements() -> list[Path]:
    store = open_store()
    if not store.files.local:
        raise ValueError(f"{store.files.uri} is not a local store; accepted: a folder, for a review")
    return sorted(store.files.local_path().glob(_JOURNALED))
