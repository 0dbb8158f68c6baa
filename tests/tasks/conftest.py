from __future__ import annotations

import pytest

from tasks.tracking import RunRef, open_run
from tests.pipeline_fixtures import mlflow_template, mlflow_uri, prefect_server

__all__ = ["mlflow_template", "mlflow_uri", "prefect_server"]


@pytest.fixture
def run(mlflow_uri: str) -> RunRef:
    """A night's run in MLflow."""
    return open_run("agpo/nightly", "nightly", "key", tracking_uri=mlflow_uri)
