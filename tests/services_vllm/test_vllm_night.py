"""A whole night that samples by vLLM: training with weights handed over in place, evaluation, the gate."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from agpo.journal import Journal
from agpo.rollout.engines import close_idle
from tests.flows.night import Place, made, smoke
from tests.pipeline_fixtures import mlflow_template, prefect_server
from tests.services_vllm.hand_overs import check_hand_overs

__all__ = ["mlflow_template", "prefect_server"]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.mark.usefixtures("prefect_server")
def test_a_night_by_vllm(mlflow_template: Path, tmp_path: Path) -> None:
    place = Place.make(tmp_path / "home", mlflow_template)
    # Heads of 32, as vLLM on a CPU needs them.
    run = smoke("rollout.engine.kind=vllm", "rollout.engine.cache=64", "base.model.heads=1")
    state = place.run(run)
    close_idle()
    assert state.is_completed(), state.message
    assert "evaluate confirmation base" in made(state.result())  # type: ignore[arg-type]
    (key,) = place.store.folders("journal")
    updates = list(islice(Journal(place.store.child(f"journal/{key}")).updates(), 10))
    assert len(updates) == 3
    check_hand_overs(updates)
    assert len(list(place.home.rglob("*vllm*.log"))) == 1, "one engine served training and evaluation"
