from __future__ import annotations

from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from tasks import live_text
from tasks.live_text import LiveText


@pytest.mark.services
def test_a_flow_run_has_one_artifact_with_the_latest_text(prefect_server: str) -> None:
    text = LiveText("live-text")  # a key of no other test

    @task(persist_result=False)
    def step(number: int) -> None:
        text.show(f"- step {number}", f"{number + 1} steps")

    @flow(persist_result=False)
    def page() -> None:
        for number in range(3):
            step(number)

    page()
    named = ArtifactFilter(key=ArtifactFilterKey(any_=["live-text"]))
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(artifact_filter=named)
        (latest,) = client.read_latest_artifacts(artifact_filter=named)  # type: ignore[arg-type]
    assert (artifact.type, artifact.data, artifact.description) == ("markdown", "- step 2", "3 steps")
    assert (latest.data, latest.description) == (artifact.data, artifact.description)


def test_outside_a_flow_run_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("an artifact was made outside a flow run")

    monkeypatch.setattr(live_text, "create_markdown_artifact", refuse)
    LiveText("live-text").show("- step 1", "1 step")
