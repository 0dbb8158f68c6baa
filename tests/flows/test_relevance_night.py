"""The night of the shop on a real Prefect API and a real MLflow store: labels, student, and what is compared."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from typer.testing import CliRunner

from agpo.artifacts import Store
from agpo.objectives import Grpo
from agpo.profile import load_settings
from agpo.records import Labels
from agpo.settings import NightlyRun
from flows.cli import app
from flows.compare import compare
from flows.label import label
from flows.plan import plan_run
from tasks.pipeline import Pipeline
from tasks.report import Report
from tests.chaos.snapshot import read_files, read_registry, read_runs
from tests.flows.night import Place, flow_run_id, made, read_flow_artifacts

pytestmark = [pytest.mark.services, pytest.mark.slow]

RELEVANCE = [
    "label confirmation base",
    "label confirmation teacher",
    "supervise",
    "label confirmation supervised",
    "label unlabelled teacher",
    "distil student",
    "judge student",
]


def smoke(*sets: str) -> NightlyRun:
    return load_settings(NightlyRun, "shop-smoke", list(sets))


class Night(NamedTuple):
    place: Place
    report: Report
    artifacts: dict[str, str]


@pytest.fixture(scope="module")
def night(prefect_server: str, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    place = Place.make(tmp_path_factory.mktemp("shop") / "home", mlflow_template)
    state = place.run(smoke())
    shown = {key: str(artifact.data) for key, artifact in read_flow_artifacts(flow_run_id(state)).items()}
    return Night(place, state.result(), shown)


@pytest.fixture
def elsewhere(night: Night, tmp_path: Path) -> Place:
    return Place(Path(shutil.copytree(night.place.home, tmp_path / "home")))


def read_labels(place: Place, report: Report) -> pl.DataFrame:
    key = next(stage.artifact for stage in report.stages if stage.stage == "label unlabelled teacher")
    folder = Store(place.store.uri).fetch(key)
    return pl.concat([pl.read_parquet(file) for file in sorted(folder.glob("labels-*.parquet"))])


def test_the_night_goes_on_with_labels_and_a_student(night: Night) -> None:
    ran = [stage.stage for stage in night.report.stages]
    assert sorted(ran[-len(RELEVANCE) :]) == sorted(RELEVANCE)
    found = night.report.relevance
    assert found is not None
    assert [teacher.name for teacher in found.teachers] == ["base", "teacher", "supervised"]
    assert {teacher.votes.pairs for teacher in found.teachers} == {40}
    assert (found.pairs, found.labelled_by) == (40, "agpo-policy-shop-smoke version 1")  # forty pairs promote nobody
    assert {"student", "majority", "tfidf", "overlap", "crosses", "gold_only"} <= set(found.students)
    assert found.outcome in ("promote", "reject", "inconclusive")


def test_a_rejected_teacher_leaves_the_labels_to_the_champion(night: Night) -> None:
    base = next(stage.artifact.key for stage in night.report.stages if stage.stage == "warm_start")
    labels = read_labels(night.place, night.report)
    assert set(labels["teacher"]) == {base}
    assert labels["id"].n_unique() == 40
    Labels.validate(labels)


def test_both_pages_show_teachers_and_students(night: Night) -> None:
    assert {"teachers", "students"} <= set(night.artifacts)
    assert "supervised" in night.artifacts["teachers"]
    assert "tfidf" in night.artifacts["students"]
    runs = read_runs(night.place.tracking, "agpo/nightly")
    metrics = runs["nightly shop-smoke"].data.metrics
    assert {"label/base/macro_f1", "label/teacher/macro_f1", "student/student/macro_f1"} <= set(metrics)
    assert runs["label unlabelled teacher"].data.metrics["label/pairs"] == 40
    assert runs["distil student"].data.metrics["student/parameters"] > 1000


def test_the_student_is_registered_with_its_evidence(night: Night) -> None:
    student = read_registry(night.place.tracking)["agpo-student-shop-smoke"]
    key = next(stage.artifact.key for stage in night.report.stages if stage.stage == "distil student")
    assert student["versions"][1]["checkpoint.key"] == key
    assert night.report.relevance is not None
    assert student["versions"][1]["gate.outcome"] == night.report.relevance.outcome


def test_the_plan_knows_the_stages(night: Night) -> None:
    planned = [stage.stage for stage in plan_run("nightly", smoke(), Store(night.place.store.uri))]
    assert sorted(planned) == sorted(stage.stage for stage in night.report.stages)


def test_a_second_night_has_nothing_new(night: Night) -> None:
    files = read_files(night.place.store)
    state = night.place.run(smoke())
    assert state.name == "NothingNew"
    report = state.result()
    assert made(report) == []
    assert report.nothing_new
    assert report.relevance == night.report.relevance
    assert read_files(night.place.store) == files


def test_new_labels_make_a_new_student(night: Night, elsewhere: Place) -> None:
    report = elsewhere.run(smoke("label.samples=2")).result()
    assert made(report) == [
        "label confirmation base",
        "label confirmation supervised",
        "label unlabelled teacher",
        "distil student",
        "judge student",
    ]


def test_label_alone_asks_the_champion(night: Night) -> None:
    report = night.place.run(smoke(), label).result()
    assert made(report) == []
    assert report.relevance is not None
    assert report.relevance.labelled_by == "agpo-policy-shop-smoke version 1"


def test_pairs_of_a_file_are_labelled(elsewhere: Place, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"query": f"red mug {number}", "title": "blue mug"} for number in range(25)]
    pl.DataFrame([*rows, {"query": "", "title": "blue mug"}]).write_ndjson(file)
    report = elsewhere.run(smoke(f"label.path={file}"), label).result()
    assert made(report) == ["prepare_pairs", "label unlabelled teacher"]
    assert read_labels(elsewhere, report)["query"].to_list() == [row["query"] for row in rows]


def test_a_night_from_the_champion_keeps_its_start(elsewhere: Place) -> None:
    first = elsewhere.run(smoke("start=champion", "promote.margin=0.04")).result()
    start = read_runs(elsewhere.tracking, "agpo/nightly")["nightly shop-smoke"].data.tags["agpo.start"]
    assert next(stage.artifact.key for stage in first.stages if stage.stage == "warm_start") in start
    assert made(elsewhere.run(smoke("start=champion", "promote.margin=0.04")).result()) == []


def test_training_stops_when_its_time_is_up(elsewhere: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is set so that the time comes after the first step; the steps that are left stay for another night."""
    asked = iter([False, True])
    monkeypatch.setattr(Pipeline, "time_is_up", property(lambda self: next(asked, True)))
    run = smoke("learner.rate=1e-3", "stop_training_at=06:00")
    report = elsewhere.run(run).result()
    trained = next(stage.artifact for stage in report.stages if stage.stage == "train agpo")
    assert trained.rows == 1
    monkeypatch.undo()
    later = elsewhere.run(run).result()
    assert next(stage.artifact.rows for stage in later.stages if stage.stage == "train agpo") == 2


def test_the_time_is_the_next_one_in_its_zone() -> None:
    now = datetime.now(UTC)
    hour = (now + timedelta(hours=2)).strftime("%H:%M")
    for clock, least, most in ((hour, 1.9, 2.1), (now.strftime("%H:%M"), 23.9, 24.1)):
        place = object.__new__(Pipeline)
        stop = Pipeline.next_stop(smoke(f"stop_training_at={clock}"))
        assert stop is not None
        place.stop_training_at = stop
        assert least < (stop - now) / timedelta(hours=1) < most
        assert not place.time_is_up
    assert Pipeline.next_stop(smoke()) is None


def test_teachers_are_compared_by_their_students(elsewhere: Place) -> None:
    comparison = elsewhere.run(smoke(), compare).result()
    assert [entry.name for entry in comparison.teachers] == ["base", "supervised", "agpo", "grpo", "gold"]
    base, *_, gold = comparison.teachers
    assert (base.difference.value, base.difference.lower, base.difference.upper) == (0, 0, 0)
    assert gold.teacher is None
    assert smoke().compare == ()  # GRPO is what AGPO is compared with where nothing is named
    named = elsewhere.run(smoke().model_copy(update={"compare": (Grpo(),)}), compare).result()
    assert named.teachers == comparison.teachers


def test_lineage_leads_from_a_label_to_the_data(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGPO_HOME", str(night.place.home))
    name = read_labels(night.place, night.report)["id"][0]
    runner = CliRunner()
    chain = runner.invoke(app, ["lineage", name])
    assert chain.exit_code == 0, chain.output
    for part in (name, "query: ", "policy: policy/", "agpo-policy-shop-smoke version 1 @base", "problems: problems/"):
        assert part in chain.output
    listed = runner.invoke(app, ["labels", "--teacher", "champion", "--family", "shop-smoke"])
    assert "unlabelled" in listed.output
    unknown = runner.invoke(app, ["labels", "--teacher", "99", "--family", "shop-smoke"])
    assert unknown.exit_code == 2
    assert "agpo-policy-shop-smoke has no version or alias '99'" in unknown.output
    missing = runner.invoke(app, ["lineage", "label-0"])
    assert missing.exit_code == 2
    assert "no label label-0" in missing.output
