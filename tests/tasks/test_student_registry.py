"""Students in a real SQLite registry: what a version holds, what it answers, and that it is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
import yaml
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException

from agpo.artifacts import ArtifactRef
from agpo.relevance import find_scheme
from agpo.student.scorer import Scorer
from tasks.student_registry import StudentRegistry, save_model
from tasks.tracking import RunRef
from tests.agpo.student.tiny_student import make_values, write_student


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_student(tmp_path_factory.mktemp("student"), make_values(find_scheme("esci4")))
    (folder / "encoder").mkdir()
    (folder / "encoder" / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, target, "ab" * 32)
    return target


@pytest.fixture
def registry(mlflow_uri: str) -> StudentRegistry:
    return StudentRegistry(mlflow_uri, "shop")


def student(name: str) -> ArtifactRef:
    return ArtifactRef(uri=f"s3://b/student/{name}", key=name, sha256="cd" * 32, kind="student", rows=0, bytes=1_234)


def test_the_model_has_what_serves_and_no_pickle(saved: Path) -> None:
    files = {str(file.relative_to(saved)) for file in saved.rglob("*") if file.is_file()}
    assert {
        "MLmodel",
        "code/scorer.py",
        "student_model.py",
        "artifacts/student/student.json",
        "artifacts/student/student.onnx",
        "artifacts/student/tokenizer.json",
        "requirements.txt",
        "input_example.json",
    } <= files
    assert not [name for name in files if "encoder" in name or name.endswith((".pkl", ".pickle", ".pyc"))]
    requirements = (saved / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in requirements] == [
        "mlflow",
        "numpy",
        "onnxruntime",
        "pandas",
        "tokenizers",
    ]
    assert all("==" in line for line in requirements)
    about = yaml.safe_load((saved / "MLmodel").read_text())
    assert about["model_uuid"] == ("ab" * 32)[:32]
    assert '"attributes", "required": false' in about["signature"]["inputs"]


def test_the_model_answers_as_the_scorer(saved: Path, folder: Path) -> None:
    rows = pd.DataFrame(
        [
            {"query": "red shoe", "title": "red shoe", "attributes": "for: case"},
            {"query": "blue lamp", "title": "case for lamp", "attributes": None},
        ],
        index=[7, 3],
    )
    found = mlflow.pyfunc.load_model(str(saved)).predict(rows)
    scorer = Scorer(folder)
    expected = scorer.score(rows["query"].tolist(), rows["title"].tolist(), ["for: case", None])
    assert list(found.index) == [7, 3]
    for answer, shares in zip(found.to_dict("records"), expected.tolist(), strict=True):
        label = scorer.labels[shares.index(max(shares))]
        assert (answer["label"], answer["name"], answer["relevant"]) == (label.letter, label.name, label.relevant)
        assert answer["probabilities"] == dict(zip("ICSE", shares, strict=True))
        assert answer["expected_gain"] == pytest.approx(0.01 * shares[1] + 0.1 * shares[2] + shares[3])


def test_attributes_may_be_left_out(saved: Path) -> None:
    model = mlflow.pyfunc.load_model(str(saved))
    rows = [{"query": "red shoe", "title": "blue lamp"}]
    found = model.predict(pd.DataFrame(rows)).to_dict("records")
    assert found == model.predict(pd.DataFrame(rows).assign(attributes="")).to_dict("records")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query": "red"}], r"missing inputs \['title'\]"),
        ([{"query": "red", "title": 3}], r"Incompatible input types for column title"),
        ([{"query": "red", "title": "lamp"}, {"query": " ", "title": "lamp"}], r"row 2: query is ' '; accepted"),
        ([{"query": "red", "title": "lamp"}, {"query": "red", "title": None}], r"row 2: title is missing"),
    ],
    ids=["no column", "number", "blank", "missing"],
)
def test_bad_rows_are_refused_by_name(saved: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(MlflowException, match=message) as refused:
        mlflow.pyfunc.load_model(str(saved)).predict(pd.DataFrame(rows))
    assert refused.value.get_http_status_code() == 400


def test_a_version_has_files_reference_evidence_and_card(registry: StudentRegistry, run: RunRef, folder: Path) -> None:
    version = registry.register(student("a"), folder, run, {"macro_f1": {"value": 0.8}, "outcome": "promote"}, "# Card")
    registry.promote(version)
    assert registry.artifact("champion") == student("a")
    found = registry.client.get_model_version("agpo-student-shop", str(version))
    assert (found.run_id, found.description, found.status) == (run.run_id, "# Card", "READY")
    assert (found.tags["evidence.outcome"], found.tags["evidence.macro_f1.value"]) == ("promote", "0.8")
    answer = mlflow.pyfunc.load_model(found.source).predict(pd.DataFrame([{"query": "red", "title": "lamp"}]))
    assert len(answer) == 1


def test_a_student_is_registered_once_with_its_latest_evidence(
    registry: StudentRegistry, run: RunRef, folder: Path
) -> None:
    first = registry.register(student("a"), folder, run, {"outcome": "inconclusive"}, "old")
    other = registry.register(student("b"), folder, run)
    assert registry.register(student("a"), folder, run, {"outcome": "promote"}, "card") == first != other
    found = registry.client.get_model_version(registry.name, str(first))
    assert (found.tags["evidence.outcome"], found.description) == ("promote", "card")
    assert len(registry.client.search_logged_models([run.experiment_id])) == 2


@pytest.mark.parametrize(
    ("call", "survives"),
    [
        ("log_model_artifacts", False),
        ("log_model_artifacts", True),
        ("finalize_logged_model", True),
        ("create_model_version", False),
        ("create_model_version", True),
    ],
)
def test_a_kill_while_registering_leaves_one_model_and_one_version(
    registry: StudentRegistry, run: RunRef, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, survives: bool
) -> None:
    done: Callable[..., Any] = getattr(registry.client, call)

    def die(*args: Any, **kwargs: Any) -> None:
        if survives:
            done(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(registry.client, call, die)
        registry.register(student("a"), folder, run)
    version = registry.register(student("a"), folder, run)
    (made,) = registry.client.search_model_versions(f"name = '{registry.name}'")
    assert int(made.version) == version
    (model,) = registry.client.search_logged_models([run.experiment_id])
    assert model.status == LoggedModelStatus.READY
    assert (Path(model.artifact_location.removeprefix("file://")) / "MLmodel").exists()


def test_the_gate_moves_the_aliases_once_a_decision(registry: StudentRegistry, run: RunRef, folder: Path) -> None:
    first, second = (registry.register(student(name), folder, run) for name in "ab")
    registry.act_on("promote", first, "first night")
    registry.act_on("inconclusive", second, "second night")
    assert (registry.version("champion"), registry.version("challenger")) == (first, second)
    registry.act_on("promote", second, "third night")
    registry.act_on("promote", first, "first night")
    found = {alias: registry.version(alias) for alias in ("champion", "previous", "challenger")}
    assert found == {"champion": second, "previous": first, "challenger": None}


def test_a_version_made_by_hand_is_named(registry: StudentRegistry, run: RunRef, folder: Path) -> None:
    registry.register(student("a"), folder, run)
    made = registry.client.create_model_version(registry.name, source=f"runs:/{run.run_id}/model", run_id=run.run_id)
    registry.promote(int(made.version))
    with pytest.raises(ValueError, match=r"agpo-student-shop version 2 \(champion\) has no tag checkpoint.key"):
        registry.artifact("champion")
