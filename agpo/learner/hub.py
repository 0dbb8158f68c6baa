"""A base model of the Hugging Face hub. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from agpo.learner.folder import WANTED
from agpo.settings import HubBase

_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_model(base: HubBase) -> str:
    """The commit that the revision stands for; a full commit needs no network."""
    if _COMMIT.fullmatch(base.revision):
        return base.revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(base.model, revision=base.revision).sha
    except Exception as error:  # the hub client's errors have no common base
        raise _unreachable(base, error) from error
    assert commit is not None  # the hub always names the commit of a revision
    return commit


def download_model(base: HubBase) -> Path:
    """The model's folder in the hub's local cache."""
    from huggingface_hub import snapshot_download

    commit, patterns = resolve_model(base), sorted(f"*{suffix}" for suffix in WANTED)
    try:
        found = snapshot_download(base.model, revision=commit, allow_patterns=patterns)
    except Exception as error:
        raise _unreachable(base, error) from error
    return Path(found)


def _unreachable(base: HubBase, error: Exception) -> ConnectionError:
    cause = str(error).strip().partition("\n")[0]
    return ConnectionError(
        f"base.model = {base.model!r} (revision {base.revision!r}) cannot be read from the hub: "
        f"{type(error).__name__}: {cause}; check the name and the network, "
        "or give a folder with base.kind=folder and base.path"
    )
