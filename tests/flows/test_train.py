"""Training as a flow: what a later attempt finds, and how a failure shows."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from agpo.artifacts import Store
from agpo.learner.update import Learner, Outcome
from agpo.recipe import Recipe
from agpo.session import Session
from agpo.settings import TrainRun
from flows.train import train
from tasks.tracking import connect
from tests.chaos.crash import Crash
from tests.chaos.snapshot import read_runs, read_tracking
from tests.flows.night import Place, flow_run_id, made, read_task_states, smoke

pytestmark = [pytest.mark.services, pytest.mark.slow]

RUN = TrainRun(**{name: getattr(smoke("checkpoint_every=10"), name) for name in TrainRun.model_fields})


@pytest.fixture(scope="module")
def place(prefect_server: str, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A home with problems and a base, made by a training of no steps."""
    place = Place.make(tmp_path_factory.mktemp("train") / "home", mlflow_template)
    report = place.run(RUN.model_copy(update={"steps": 0}), train).result()
    assert made(report) == ["prepare", "warm_start", "train agpo"]
    return place


def other_run(number: int, **settings: Any) -> TrainRun:
    """A training run that no other test has, on the same base."""
    learner = RUN.learner.model_copy(update={"rate": 1e-4 * number})
    return RUN.model_copy(update={"learner": learner, **settings})


def test_journalled_steps_are_found_and_the_rest_is_made(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run, update = other_run(1), Learner.update

    def crash_at_step_2(self: Learner, batch: Any, step: int) -> Outcome:
        outcome = update(self, batch, step)
        if step == 2:
            raise Crash
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", crash_at_step_2)
        with pytest.raises(Crash):
            place.run(run, train)
    state = place.run(run, train)
    assert made(state.result()) == ["train agpo"]
    states = read_task_states(flow_run_id(state))
    parts = {name: state for name, state in states.items() if name.split()[0] in ("rollout", "verify", "update")}
    made_again = {"update 2"}
    assert {name for name, state in parts.items() if state == "Completed"} == made_again
    assert {name for name, state in parts.items() if state == "Found"} == {
        f"{part} {step}" for step in range(3) for part in ("rollout", "verify", "update")
    } - made_again
    training = read_runs(place.tracking, "agpo/train")["train agpo"]
    assert (training.info.status, training.data.tags["agpo.attempts"]) == ("FINISHED", "2")


def test_a_failing_step_fails_the_flow_and_the_next_attempt_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = other_run(2)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", lambda *_: (_ for _ in ()).throw(MemoryError("no room for gradients")))
        state = place.run(run, train)
    assert state.is_failed()
    assert "MemoryError: no room for gradients" in (state.message or "")
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_run_id(state))
    assert flow_run.state is not None
    assert flow_run.state.name == "Failed"
    runs = read_runs(place.tracking, "agpo/train")
    for name in ("train agpo", "train smoke"):
        assert runs[name].info.status == "FAILED"
        assert runs[name].data.tags["agpo.error"] == "MemoryError: no room for gradients"

    assert place.run(run, train).is_completed()
    again = read_runs(place.tracking, "agpo/train")
    for name in ("train agpo", "train smoke"):
        assert again[name].info.run_id == runs[name].info.run_id
        assert again[name].info.status == "FINISHED"
        assert again[name].data.tags["agpo.attempts"] == "2"
        assert "agpo.error" not in again[name].data.tags
        assert again[name].data.tags["mlflow.note.content"].count("Attempt") == 2


def test_a_failing_stage_publishes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUN.model_copy(update={"seed": 5})
    stage = importlib.import_module("agpo.problems.prepare")
    with monkeypatch.context() as patch:
        patch.setattr(stage, "prepare", lambda *_: (_ for _ in ()).throw(ValueError("row 3: gold is empty")))
        state = place.run(run, train)
    assert state.is_failed()
    assert "row 3: gold is empty" in (state.message or "")
    assert Recipe(run).prepare().find(Store(place.store.uri)) is None
    assert read_runs(place.tracking, "agpo/train")["prepare"].info.status == "FAILED"


def test_a_run_that_another_process_trains_is_left_alone(place: Place) -> None:
    run, recipe, store = other_run(3), Recipe(RUN), Store(place.store.uri)
    problems = recipe.prepare().find(store)
    assert problems is not None
    base = recipe.warm_start(problems.ref.key).find(store)
    assert base is not None
    with Session(run, store, problems.ref, base.ref) as other:
        other.claim()
        state = place.run(run, train)
        assert state.is_failed()
        assert "is held by process" in (state.message or "")
        assert list(other.journal.updates()) == []
    assert other.key not in str(read_tracking(place.tracking).keys())


def test_a_run_that_stops_itself_says_why(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = other_run(4, learner=RUN.learner.model_copy(update={"rate": 5e-3, "refusals": 2}))
    monkeypatch.setattr(Learner, "update", lambda self, batch, step: Outcome("loss is nan", {}))
    for _ in range(2):
        state = place.run(run, train)
        assert state.is_failed()
        assert "2 updates in a row were refused (learner.refusals)" in (state.message or "")
        assert "step 1: loss is nan" in (state.message or "")
    training = read_runs(place.tracking, "agpo/train")["train agpo"]
    curve = connect(place.tracking).get_metric_history(training.info.run_id, "policy/refused")
    assert [(point.step, point.value) for point in curve] == [(0, 1), (1, 1)]
