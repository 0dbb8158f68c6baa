"""Rows of a data set of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agpo.problems.reader import SourceRow

if TYPE_CHECKING:
    from agpo.settings import HubProblems

_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_revision(settings: HubProblems) -> str:
    """The commit that the revision stands for; a full commit needs no network."""
    if _COMMIT.fullmatch(settings.revision):
        return settings.revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(settings.dataset, revision=settings.revision).sha
    except Exception as error:  # the hub client's errors have no common base
        raise _unreachable(settings, error) from error
    assert commit is not None  # the hub always names the commit of a revision
    return commit


def read_hub_rows(settings: HubProblems, commit: str) -> Iterator[SourceRow]:
    """All rows of the split, in order, numbered from 1."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(
            f"problems.dataset = {settings.dataset!r} needs the package datasets: pip install 'agpo[pipeline]'"
        ) from error
    try:
        rows = load_dataset(settings.dataset, settings.config or None, split=settings.split, revision=commit)
    except Exception as error:  # a wrong name, split or configuration; no network; each with its own class
        raise _unreachable(settings, error) from error
    for number, value in enumerate(rows, 1):
        yield SourceRow(settings.dataset, number, value)


def _unreachable(settings: HubProblems, error: Exception) -> ConnectionError:
    cause = str(error).strip().partition("\n")[0]
    return ConnectionError(
        f"problems.dataset = {settings.dataset!r} (config {settings.config!r}, split {settings.split!r}, revision "
        f"{settings.revision!r}) cannot be read from the hub: {type(error).__name__}: {cause}; check the names and the "
        "network, or give a file with problems.source=table and problems.path"
    )
