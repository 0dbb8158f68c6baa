"""Tracking against a real SQLite backend."""

from __future__ import annotations

import json
import math
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from prefect import flow
from prefect.exceptions import Pause, TerminationSignal

from agpo.artifacts import ArtifactRef, Store
from tasks.tracking import (
    RunRef,
    StepRecord,
    connect,
    last_logged_step,
    log_dataset,
    log_figure,
    log_json,
    log_output,
    log_picture,
    log_pictures,
    log_steps,
    log_summary,
    log_text,
    open_run,
    run_context,
)


def open_one(uri: str, key: str = "key", **options: Any) -> RunRef:
    return open_run("agpo/train", "train", key, tracking_uri=uri, **options)


def read(ref: RunRef) -> Run:
    return connect(ref.tracking_uri).get_run(ref.run_id)


def history(ref: RunRef, name: str) -> list[tuple[int, int, float]]:
    points: list[Metric] = connect(ref.tracking_uri).get_metric_history(ref.run_id, name)
    return [(point.step, point.timestamp, point.value) for point in points]


def records_of(steps: range, names: int = 2) -> list[StepRecord]:
    return [
        {"step": step, "time_ms": 1_700_000_000_000 + step, "metrics": {f"m/{i}": step + i / 8 for i in range(names)}}
        for step in steps
    ]


def test_a_second_attempt_continues_the_run_of_its_key(mlflow_uri: str) -> None:
    first = open_one(mlflow_uri, params={"learner": {"rate": 1e-4}})
    with run_context(first):
        pass
    second = open_one(mlflow_uri, params={"learner": {"rate": 1e-4}})
    assert second == first
    run = read(second)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "train"
    assert run.data.tags["agpo.attempts"] == "2"
    assert open_one(mlflow_uri, key="another").run_id != first.run_id


def test_a_child_names_its_parent(mlflow_uri: str) -> None:
    parent = open_one(mlflow_uri)
    child = open_one(mlflow_uri, key="child", parent=parent)
    assert read(child).data.tags["mlflow.parentRunId"] == parent.run_id


def test_parameters_are_flat_and_complete_whatever_an_attempt_left_out(mlflow_uri: str) -> None:
    many = {f"p{i}": i for i in range(150)}
    open_one(mlflow_uri, params={"p0": 0})
    ref = open_one(mlflow_uri, params={**many, "loss": {"kl": 0.05, "terms": ["a", "b"]}, "name": "x", "none": None})
    params = read(ref).data.params
    assert params == {f"p{i}": str(i) for i in range(150)} | {
        "loss.kl": "0.05",
        "loss.terms": '["a", "b"]',
        "name": "x",
        "none": "null",
    }


def test_a_raised_setting_is_shown_beside_its_first_value(mlflow_uri: str) -> None:
    open_one(mlflow_uri, params={"steps": 100})
    data = read(open_one(mlflow_uri, params={"steps": 200})).data
    assert data.params["steps"] == "100"
    assert data.tags["agpo.param.steps"] == "200"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no rows"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "KILLED"),
        (TerminationSignal(signal=15), "KILLED"),
        (Pause(state=None), "RUNNING"),  # a suspended flow run goes on later
    ],
)
def test_the_end_of_a_run_is_its_status(mlflow_uri: str, error: BaseException, status: str) -> None:
    ref = open_one(mlflow_uri)
    with pytest.raises(type(error)), run_context(ref):
        raise error
    run = read(ref)
    assert run.info.status == status
    assert run.data.tags.get("agpo.error") == ("ValueError: no rows" if status == "FAILED" else None)


def test_a_repaired_run_shows_no_error(mlflow_uri: str) -> None:
    with pytest.raises(ValueError), run_context(open_one(mlflow_uri)):
        raise ValueError
    ref = open_one(mlflow_uri)
    with run_context(ref):
        pass
    assert read(ref).info.status == "FINISHED"
    assert "agpo.error" not in read(ref).data.tags


def test_steps_logged_again_add_no_point(mlflow_uri: str) -> None:
    ref = open_one(mlflow_uri)
    assert last_logged_step(ref) == -1
    for steps in (range(3), range(1, 5), range(5)):
        log_steps(ref, records_of(steps))
    assert history(ref, "m/1") == [(step, 1_700_000_000_000 + step, step + 1 / 8) for step in range(5)]
    assert last_logged_step(ref) == 4


def test_steps_that_fill_several_batches_are_all_logged(mlflow_uri: str) -> None:
    ref = open_one(mlflow_uri)
    log_steps(ref, records_of(range(90), names=30))
    assert {len(history(ref, f"m/{i}")) for i in range(30)} == {90}


def test_a_kill_between_two_batches_loses_nothing(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = open_one(mlflow_uri)
    log_batch, calls = MlflowClient.log_batch, iter(range(100))

    def die_second(*args: Any, **options: Any) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        log_batch(*args, **options)

    records = records_of(range(90), names=30)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "log_batch", die_second)
        log_steps(ref, records)
    assert 0 < len(history(ref, "m/0")) < 90
    log_steps(ref, [record for record in records if record["step"] > last_logged_step(ref)])
    assert [step for step, _, _ in history(ref, "m/0")] == list(range(90))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.floats(width=64), min_size=1, max_size=8),
    slices=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 8)), max_size=3),
)
def test_any_overlap_of_logged_slices_leaves_each_point_once(
    mlflow_uri: str, values: list[float], slices: list[tuple[int, int]]
) -> None:
    ref = open_one(mlflow_uri, key=uuid.uuid4().hex)
    records: list[StepRecord] = [{"step": i, "time_ms": 5, "metrics": {"x": value}} for i, value in enumerate(values)]
    for start, length in [*slices, (0, len(values))]:
        log_steps(ref, records[start : start + length])
    found = history(ref, "x")
    assert [step for step, _, _ in found] == list(range(len(values)))
    for value, (_, _, logged) in zip(values, found, strict=True):
        assert logged == value or (math.isnan(logged) and not math.isfinite(value))


def test_a_wrong_name_is_refused_and_logs_nothing(mlflow_uri: str) -> None:
    ref = open_one(mlflow_uri)
    with pytest.raises(MlflowException, match="pass@1"):
        log_steps(ref, [{"step": 0, "time_ms": 5, "metrics": {"reward": 1.0, "pass@1": 0.5}}])
    assert history(ref, "reward") == []
    assert last_logged_step(ref) == -1


def test_a_summary_keeps_its_latest_value_and_repeats_none(mlflow_uri: str) -> None:
    ref = open_one(mlflow_uri)
    for value in (0.5, 0.5, 0.25):
        log_summary(ref, {"eval/pass_at_1": value, "eval/undefined": math.nan})
    assert [value for _, _, value in history(ref, "eval/pass_at_1")] == [0.5, 0.25]
    assert len(history(ref, "eval/undefined")) == 1
    assert read(ref).data.metrics["eval/pass_at_1"] == 0.25


def test_a_dataset_is_an_input_with_its_digest(mlflow_uri: str) -> None:
    ref = open_one(mlflow_uri)
    artifact = ArtifactRef(uri="s3://b/problems/k", key="k" * 64, sha256="ab" * 32, kind="problems", rows=10, bytes=99)
    for _ in range(2):
        log_dataset(ref, artifact, "countdown", "training")
    inputs = read(ref).inputs
    assert inputs is not None
    [found] = inputs.dataset_inputs
    assert found.dataset.name == "countdown"
    assert found.dataset.digest == artifact.sha256[:36]
    assert found.dataset.source_type == "s3"
    assert json.loads(found.dataset.source) == {"uri": artifact.uri}
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training", "agpo.key": artifact.key}


def test_an_output_shows_reference_manifest_and_rows(mlflow_uri: str, tmp_path: Path) -> None:
    ref = open_one(mlflow_uri)
    made = tmp_path / "made"
    made.mkdir()
    (made / "rows.txt").write_text("x")
    store = Store(tmp_path / "store")
    artifact = store.publish(
        made,
        kind="rollouts",
        key="k",
        stage="rollout",
        version=1,
        settings={},
        inputs={},
        environment={},
        rows=1,
        summary={},
        producer={},
    )
    rows = [{"id": "a", "prompt": 'say "x",\nthen y', "ids": [1, 2]}]
    log_output(ref, artifact, "rollouts", store.manifest(artifact), rows)
    client = connect(mlflow_uri)
    folder = Path(client.download_artifacts(ref.run_id, "outputs/rollouts", str(tmp_path)))
    assert ArtifactRef.model_validate_json((folder / "reference.json").read_text()) == artifact
    assert json.loads((folder / "manifest.json").read_text())["files"][0]["name"] == "rows.txt"
    assert (folder / "preview.csv").read_bytes() == b'id,prompt,ids\r\na,"say ""x"",\nthen y","[1, 2]"\r\n'
    assert read(ref).data.tags["agpo.output.rollouts"] == artifact.uri


def test_files_lie_beside_the_database_and_nowhere_else(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    ref = open_one(mlflow_uri)
    figure = Figure()
    figure.subplots().plot([1, 2], [3, 4])
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    figure.savefig(pictures / "curves.png")
    log_figure(ref, figure, "reward")
    log_picture(ref, pictures / "curves.png", "pass-at-k")
    log_pictures(ref, pictures)
    log_json(ref, {"γ": 1}, "report")
    log_text(ref, "# Card", "card.md")
    root = tmp_path / "mlflow-artifacts" / ref.run_id / "artifacts"
    found = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    assert found == {"figures/reward.png", "figures/pass-at-k.png", "figures/curves.png", "report.json", "card.md"}
    assert json.loads((root / "report.json").read_text()) == {"γ": 1}
    assert list(elsewhere.iterdir()) == []


def test_threads_log_to_the_run_that_they_name_and_make_no_other(mlflow_uri: str) -> None:
    refs = [open_one(mlflow_uri, key=f"key{i}") for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda ref: log_steps(ref, records_of(range(20))), refs))
    assert [len(history(ref, "m/0")) for ref in refs] == [20] * 4
    client = connect(mlflow_uri)
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    assert {run.info.run_id for run in client.search_runs(everywhere)} == {ref.run_id for ref in refs}


@pytest.mark.parametrize(
    ("tracking_uri", "address", "url"),
    [
        (
            "http://mlflow:5000/",
            None,
            "http://mlflow:5000/#/experiments/1/runs/r?workflowType=machine_learning",
        ),
        (
            "sqlite:////x/mlflow.db",
            "http://127.0.0.1:5001",
            "http://127.0.0.1:5001/#/experiments/1/runs/r?workflowType=machine_learning",
        ),
        ("sqlite:////x/mlflow.db", None, "sqlite:////x/mlflow.db#experiments/1/runs/r"),
    ],
)
def test_the_address_of_a_run(
    monkeypatch: pytest.MonkeyPatch, tracking_uri: str, address: str | None, url: str
) -> None:
    monkeypatch.delenv("AGPO_MLFLOW_UI", raising=False)
    if address:
        monkeypatch.setenv("AGPO_MLFLOW_UI", address)
    assert RunRef(tracking_uri=tracking_uri, experiment_id="1", run_id="r").url == url


@pytest.mark.services
def test_in_a_flow_the_run_links_back_to_every_attempt(prefect_server: str, mlflow_uri: str) -> None:
    @flow(persist_result=False)
    def train() -> RunRef:
        return open_one(mlflow_uri)

    train()
    tags = read(train()).data.tags
    assert tags["prefect.flow_run_url"].startswith(prefect_server.removesuffix("/api"))
    assert tags["prefect.flow_run_url"].endswith(tags["prefect.flow_run_id"])
    first, last = tags["mlflow.note.content"].split("\n\n")
    assert first.startswith("Attempt 1: Prefect flow run [")
    assert last == f"Attempt 2: Prefect flow run [{tags['prefect.flow_run_name']}]({tags['prefect.flow_run_url']})"
