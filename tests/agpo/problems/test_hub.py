from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agpo.problems import source_digests
from agpo.problems.prepare import prepare
from agpo.settings import HubProblems
from agpo.stages import Work

COMMIT = "0123456789" * 4
SETTINGS = HubProblems(dataset="owner/data", gold_format="gsm8k", selection=0, confirmation=0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A hub with one data set; the calls that were made."""
    import huggingface_hub

    calls: list[tuple[Any, ...]] = []

    class Api:
        def dataset_info(self, dataset: str, revision: str) -> SimpleNamespace:
            calls.append(("info", dataset, revision))
            return SimpleNamespace(sha=COMMIT)

    def load_dataset(dataset: str, config: str | None, split: str, revision: str) -> list[dict[str, str]]:
        calls.append(("load", dataset, config, split, revision))
        return [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "1 + 2?", "answer": "#### 3"}]

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


def test_rows_come_from_the_commit_that_the_key_names(hub: list[tuple[Any, ...]], work: Work) -> None:
    assert source_digests(SETTINGS)["owner/data"] == COMMIT
    assert prepare(SETTINGS, work)["rows"] == 2
    assert hub[-1] == ("load", "owner/data", None, "train", COMMIT)


def test_a_full_commit_needs_no_look_up(hub: list[tuple[Any, ...]]) -> None:
    other = "f" * 40
    assert source_digests(SETTINGS.model_copy(update={"revision": other}))["owner/data"] == other
    assert hub == []


def test_without_a_network_the_error_says_what_to_do(work: Work) -> None:
    with pytest.raises(ConnectionError) as caught:
        prepare(SETTINGS, work)
    message = str(caught.value)
    assert message.startswith(
        "problems.dataset = 'owner/data' (config '', split 'train', revision 'main') cannot be read"
    )
    assert "problems.source=table and problems.path" in message
    assert "\n" not in message


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"problems.dataset = 'owner/data' needs the package datasets: pip install"):
        prepare(SETTINGS.model_copy(update={"revision": COMMIT}), work)
