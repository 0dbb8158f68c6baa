"""What a flow run's page shows, read back from a real Prefect API."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from tasks import run_page
from tasks.run_page import show_link, show_picture, show_table
from tasks.tracking import RunRef


def save_noise(file: Path, width: int, height: int) -> Path:
    """A picture that compresses badly: about three bytes a pixel."""
    Image.frombytes("RGB", (width, height), os.urandom(3 * width * height)).save(file)
    return file


def read_artifact(key: str) -> Any:
    with get_client(sync_client=True) as client:
        [found] = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return found.data


@pytest.mark.services
def test_a_flow_run_shows_link_table_and_pictures(
    prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGPO_MLFLOW_UI", "http://127.0.0.1:5001")
    small, large = save_noise(tmp_path / "small.png", 8, 4), save_noise(tmp_path / "large.png", 600, 400)
    ref = RunRef(tracking_uri="sqlite:////x/mlflow.db", experiment_id="1", run_id="r")

    @flow(persist_result=False)
    def page() -> None:
        show_link(ref, key="page-link")  # a key that no flow of another test uses
        monkeypatch.delenv("AGPO_MLFLOW_UI")
        show_link(ref, key="mlflow-pointer")
        show_table([{"set": "hard", "pass@64": 0.97}], "summary", "Boundary")
        show_picture(small, "small", "Small")
        show_picture(large, "large", "Large")

    page()
    assert "(http://127.0.0.1:5001/#/experiments/1/runs/r?workflowType=machine_learning)" in read_artifact("page-link")
    assert "`sqlite:////x/mlflow.db#experiments/1/runs/r`" in read_artifact("mlflow-pointer")
    assert json.loads(read_artifact("summary")) == [{"set": "hard", "pass@64": 0.97}]
    assert read_embedded("small") == small.read_bytes()
    assert len(large.read_bytes()) > 500_000 >= len(read_embedded("large"))
    with Image.open(io.BytesIO(read_embedded("large"))) as image:
        assert image.width / image.height == pytest.approx(1.5, rel=0.02)


def read_embedded(key: str) -> bytes:
    start, end = "(data:image/png;base64,", ")"
    data = read_artifact(key)
    return base64.b64decode(data[data.index(start) + len(start) : data.rindex(end)])


def test_outside_a_flow_run_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("an artifact was made outside a flow run")

    for name in ("create_link_artifact", "create_markdown_artifact", "create_table_artifact"):
        monkeypatch.setattr(run_page, name, refuse)
    show_link(RunRef(tracking_uri="http://127.0.0.1:5000", experiment_id="1", run_id="r"))
    show_table([{"a": 1}], "summary", "Summary")
    show_picture(save_noise(tmp_path / "p.png", 4, 4), "picture", "Picture")
