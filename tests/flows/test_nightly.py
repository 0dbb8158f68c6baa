"""The whole night on a real Prefect API and a real MLflow store."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from typer.testing import CliRunner

from agpo.artifacts import Store
from agpo.evaluation import Decision
from agpo.objectives import Agpo
from agpo.objectives.w_reinforce import WReinforce
from agpo.recipe import Recipe
from flows.cli import app
from flows.plan import plan_run
from tasks.report import Report
from tasks.tracking import connect
from tests.chaos.snapshot import read_files, read_registry, read_runs, read_steps, read_tracking
from tests.flows.night import Place, flow_run_id, made, read_flow_artifacts, read_task_states, smoke

pytestmark = [pytest.mark.services, pytest.mark.slow]

RUN = smoke()
STEPS = [f"{part} {step}" for step in range(RUN.steps) for part in ("rollout", "verify", "update")]
FIRST = ["prepare", "warm_start", "train agpo", "interpolate agpo 0.5"]
SELECTION = [f"evaluate selection {label}" for label in ("base", "agpo 0.5", "agpo 1.0")]


class Night(NamedTuple):
    place: Place
    report: Report
    flow_run: UUID
    snapshot: dict[str, Any]

    @property
    def untouched(self) -> Place:
        """A copy of the home as the night left it."""
        return Place(self.place.home.with_name("untouched"))


@pytest.fixture(scope="module")
def night(prefect_server: str, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A smoke night in an empty home."""
    place = Place.make(tmp_path_factory.mktemp("night") / "home", mlflow_template)
    state = place.run(RUN)
    night = Night(place, state.result(), flow_run_id(state), place.snapshot())
    shutil.copytree(place.home, night.untouched.home)
    return night


def test_every_stage_runs_once(night: Night) -> None:
    candidate = "evaluate confirmation agpo candidate"
    expected = [*FIRST, *SELECTION, "select agpo", "evaluate confirmation base", "evaluate confirmation agpo trained"]
    assert [stage.stage for stage in night.report.stages] == [*expected, candidate, "judge"]
    chosen = night.report.weights["agpo"]
    assert made(night.report) == [*expected, *([candidate] if chosen < 1 else []), "judge"]
    for stage in night.report.stages:
        assert stage.seconds > 0
        assert stage.cpu_seconds > 0
        assert stage.peak_memory_mib > 50
        assert night.place.store.names(f"{stage.artifact.kind}/{stage.artifact.key}")


def test_the_report_has_every_figure(night: Night) -> None:
    report = night.report
    assert (report.family, report.outcome) == ("smoke", "inconclusive")  # eight problems decide nothing
    assert any("8 problems" in reason for reason in report.reasons)
    rows = {(row.policy, row.set, row.k): row for row in report.pass_at_k}
    policies = ("base", "agpo trained", "agpo candidate")
    assert set(rows) == {
        (who, where, k) for who in policies for where in ("in_distribution", "hard") for k in (1, 2, 4)
    }
    for (policy, problem_set, k), row in rows.items():
        assert row.problems == 8
        assert 0 <= row.lower <= row.value <= row.upper <= 1
        assert row.difference == pytest.approx(row.value - rows["base", problem_set, k].value)
        assert row.difference_lower <= row.difference <= row.difference_upper
        if policy == "base":
            assert (row.difference_lower, row.difference_upper) == (0, 0)
    assert any(0 < row.value < 1 for row in rows.values())


def test_prefect_shows_states_and_artifacts(night: Night) -> None:
    states = read_task_states(night.flow_run)
    found = {name for name, state in states.items() if state == "Found"}
    assert found == ({"evaluate confirmation agpo candidate"} if night.report.weights["agpo"] == 1 else set())
    assert set(STEPS) <= set(states)
    assert set(states.values()) - {"Found"} == {"Completed"}
    artifacts = read_flow_artifacts(night.flow_run)
    assert set(artifacts) == {"mlflow-run", "pass-at-k", "stages", "frontier-agpo", "pass-at-k-curves"}
    assert night.report.mlflow_run in str(artifacts["mlflow-run"].data)
    assert "data:image/png;base64," in str(artifacts["pass-at-k-curves"].data)
    assert "evaluate confirmation base" in str(artifacts["stages"].data)
    assert "in_distribution" in str(artifacts["pass-at-k"].data)


def test_mlflow_has_a_run_for_the_flow_and_for_each_stage(night: Night) -> None:
    runs = read_runs(night.untouched.tracking, "agpo/nightly")
    parent = runs.pop("nightly smoke")
    assert sorted(runs) == sorted(made(night.report))
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    for run in (parent, *runs.values()):
        assert run.info.status == "FINISHED"
        assert run.data.tags["prefect.flow_run_id"] == str(night.flow_run)
        assert run.data.tags["agpo.attempts"] == "1"
        assert str(night.flow_run) in run.data.tags["mlflow.note.content"]
    keys = {stage.stage: stage.artifact.key for stage in night.report.stages}
    for name, run in runs.items():
        if name != "train agpo":  # its key is the run's, whatever its length
            assert run.data.tags["agpo.run_key"] == keys[name]


def test_a_curve_has_one_point_a_step(night: Night) -> None:
    training = read_runs(night.untouched.tracking, "agpo/nightly")["train agpo"]
    client = connect(night.untouched.tracking)
    curves = {name: client.get_metric_history(training.info.run_id, name) for name in training.data.metrics}
    assert [point.step for point in curves["rollout/accuracy"]] == [0, 1, 2]
    assert {"policy/entropy", "policy/mass_negative", "verify/wrong_share", "time/update"} <= set(curves)
    for name, points in curves.items():
        steps = [point.step for point in points]
        assert len(steps) == len(set(steps)), name
        assert set(steps) <= set(range(RUN.steps)), name


def test_mlflow_runs_show_inputs_outputs_and_figures(night: Night) -> None:
    shown = {run["name"]: run for run in night.snapshot["tracking"].values()}
    names = {name: [entry[0] for entry in run["inputs"]] for name, run in shown.items()}
    assert names["warm_start"] == ["problems"]
    assert names["train agpo"] == ["base", "problems"]
    assert names["evaluate confirmation base"] == ["policy", "problems"]
    assert names["judge"] == ["base", "candidate", "trained"]
    figures = {name: {file for file in run["files"] if file.endswith(".png")} for name, run in shown.items()}
    assert figures["train agpo"] == {"figures/training.png"}
    assert figures["select agpo"] == {"figures/frontier.png"}
    assert figures["judge"] == {"figures/curves.png"}
    assert figures["nightly smoke"] == {"figures/frontier-agpo.png", "figures/pass-at-k-curves.png"}
    assert {"card.md", "report.json"} <= set(shown["nightly smoke"]["files"])
    for stage in night.report.stages:
        if not stage.found:
            kind = stage.artifact.kind
            assert {f"outputs/{kind}/manifest.json", f"outputs/{kind}/reference.json"} <= set(
                shown[stage.stage]["files"]
            )


def test_the_registry_has_base_and_candidate(night: Night) -> None:
    model = night.snapshot["registry"]["agpo-policy-smoke"]
    base, candidate = (model["versions"][version] for version in (1, 2))
    assert model["aliases"] == {"base": 1, "champion": 1, "challenger": 2}
    keys = {stage.stage: stage.artifact.key for stage in night.report.stages}
    assert base["checkpoint.key"] == keys["warm_start"]
    weight = night.report.weights["agpo"]
    assert candidate["checkpoint.key"] == keys["train agpo" if weight == 1 else f"interpolate agpo {weight}"]
    assert (candidate["gate.outcome"], candidate["gate.decision"]) == ("inconclusive", keys["judge"])


def test_run_again_finds_everything(night: Night) -> None:
    before, points = night.place.snapshot(), night.place.count_points()
    files = read_files(night.place.store)
    state = night.place.run(RUN)
    report = state.result()
    assert made(report) == []
    states = read_task_states(flow_run_id(state))
    assert {states[name] for name in ("prepare", "train agpo") if name in states} <= {"Found"}
    assert sum(name == "Found" for name in states.values()) == len(report.stages)
    assert not set(STEPS) & set(states)
    assert (report.pass_at_k, report.outcome) == (night.report.pass_at_k, night.report.outcome)
    costs = {stage.stage: stage.seconds for stage in night.report.stages}
    assert {stage.stage: stage.seconds for stage in report.stages} == costs
    assert night.place.snapshot() == before
    assert night.place.count_points() == points
    assert read_files(night.place.store) == files


def test_a_setting_of_the_gate_runs_the_gate(night: Night) -> None:
    report = night.place.run(smoke("promote.margin=0.04")).result()
    assert made(report) == ["judge"]


def test_a_setting_of_the_learner_leaves_problems_and_base(night: Night) -> None:
    report = night.place.run(smoke("learner.rate=1e-3")).result()
    found = {stage.stage for stage in report.stages if stage.found} - {"evaluate confirmation agpo candidate"}
    assert found == {"prepare", "warm_start", "evaluate selection base", "evaluate confirmation base"}
    keys = {stage.stage: stage.artifact.key for stage in night.report.stages}
    assert all(stage.artifact.key == keys[stage.stage] for stage in report.stages if stage.stage in found)


def test_what_only_costs_time_changes_nothing(night: Night) -> None:
    other = smoke("checkpoint_every=1", "step_deadline=60", "learner.refusals=3", "verify.workers=2")
    assert made(night.place.run(other).result()) == []


def test_a_longer_run_continues(night: Night) -> None:
    longer = smoke("steps=4")
    keys = {stage.stage: stage.artifact.key for stage in night.report.stages}
    key = Recipe(RUN).train_key(keys["prepare"], keys["warm_start"])
    journal = night.place.store.child(f"journal/{key}")
    first = read_files(journal, "steps")
    state = night.place.run(longer)
    report = state.result()
    assert "train agpo" in made(report)
    parts = {
        name for name in read_task_states(flow_run_id(state)) if name.split()[0] in ("rollout", "verify", "update")
    }
    assert parts == {"rollout 3", "verify 3", "update 3"}
    later = read_files(journal, "steps")
    assert len(read_steps(journal)) == 4
    assert {name: later[name] for name in first} == first
    curve = read_tracking(night.place.tracking)[f"agpo/nightly {key}"]["metrics"]["rollout/accuracy"]
    assert [step for step, _ in curve] == [0, 1, 2, 3]
    assert read_registry(night.place.tracking)["agpo-policy-smoke"]["aliases"]["champion"] == 1


def test_the_plan_says_what_the_night_made(night: Night) -> None:
    planned = list(plan_run("nightly", RUN, Store(night.place.store.uri)))
    assert [(stage.stage, stage.key) for stage in planned] == [
        (stage.stage, stage.artifact.key) for stage in night.report.stages
    ]
    assert {stage.state for stage in planned} == {"found", "found, with the base as champion"}


@pytest.fixture
def elsewhere(night: Night, tmp_path: Path) -> Place:
    """A copy of its own, for a test that changes what other nights build on."""
    return Place(Path(shutil.copytree(night.untouched.home, tmp_path / "home")))


def test_objectives_are_compared_beside(elsewhere: Place) -> None:
    run = RUN.model_copy(update={"compare": (WReinforce(), Agpo(delta=0.5))})
    planned = [stage.stage for stage in plan_run("nightly", run, Store(elsewhere.store.uri))]
    state = elsewhere.run(run)
    report = state.result()
    assert [stage.stage for stage in report.stages] == planned
    rivals = [stage for stage in report.stages if "w_reinforce" in stage.stage or "agpo 2" in stage.stage]
    assert len(rivals) == 2 * 7
    assert not [stage.stage for stage in report.stages if stage not in rivals and not stage.found]
    assert set(report.weights) == {"agpo", "w_reinforce", "agpo 2"}
    policies = {row.policy for row in report.pass_at_k}
    assert {"base", "agpo candidate", "w_reinforce trained", "agpo 2 candidate"} <= policies
    assert {"frontier-w-reinforce", "frontier-agpo-2"} <= set(read_flow_artifacts(flow_run_id(state)))
    assert report.outcome == "inconclusive"  # the gate judges the night's own objective only


@pytest.mark.parametrize(
    ("outcome", "aliases"),
    [
        ("promote", {"base": 1, "champion": 2, "previous": 1}),
        ("reject", {"base": 1, "champion": 1}),
        ("inconclusive", {"base": 1, "champion": 1, "challenger": 2}),
    ],
)
def test_every_outcome_of_the_gate_ends_well(
    outcome: str, aliases: dict[str, int], elsewhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    judgement = importlib.import_module("agpo.evaluation.decision")
    decide = judgement.decide

    def decide_so(*arguments: Any) -> Decision:
        decision: Decision = decide(*arguments)
        return decision.model_copy(update={"outcome": outcome})

    monkeypatch.setattr(judgement, "decide", decide_so)
    monkeypatch.setenv("AGPO_HOME", str(elsewhere.home))
    command = ["run", "nightly", "--profile", "smoke", "--set", "promote.margin=0.03"]
    for _ in range(2):  # a decision acts once
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
        assert result.exit_code == 0, result.output
        assert f"Gate: {outcome}" in result.output
        assert read_registry(elsewhere.tracking)["agpo-policy-smoke"]["aliases"] == aliases
    assert " Completed " not in result.output
