from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agpo.learner.hub import download_model, resolve_model
from agpo.settings import HubBase

COMMIT = "0123456789" * 4
BASE = HubBase(model="owner/model")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """A hub with one model; the calls that were made."""
    import huggingface_hub

    calls: list[tuple[Any, ...]] = []

    class Api:
        def model_info(self, model: str, revision: str) -> SimpleNamespace:
            calls.append(("info", model, revision))
            return SimpleNamespace(sha=COMMIT)

    def snapshot_download(model: str, revision: str, allow_patterns: list[str]) -> str:
        calls.append(("download", model, revision, *allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_revision_is_resolved_to_its_commit(hub: list[tuple[Any, ...]]) -> None:
    assert resolve_model(BASE) == COMMIT
    assert hub == [("info", "owner/model", "main")]


def test_a_commit_needs_no_network() -> None:
    assert resolve_model(HubBase(model="owner/model", revision=COMMIT)) == COMMIT


def test_the_commit_is_downloaded_without_anything_that_could_be_code(
    hub: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    assert download_model(BASE) == tmp_path
    assert hub[1] == ("download", "owner/model", COMMIT, "*.jinja", "*.json", "*.model", "*.safetensors", "*.txt")


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_without_network_there_is_one_clear_line(revision: str) -> None:
    with pytest.raises(ConnectionError) as caught:
        download_model(HubBase(model="owner/model", revision=revision))
    message = str(caught.value)
    assert message.startswith(f"base.model = 'owner/model' (revision '{revision}') cannot be read from the hub: ")
    assert "base.kind=folder and base.path" in message
    assert "\n" not in message
