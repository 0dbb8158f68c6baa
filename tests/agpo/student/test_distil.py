"""The stage: what it writes, and that it writes the same after it was stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from agpo.artifacts.table import read_table
from agpo.records import Pairs, Predictions
from agpo.settings.distil import BaseEncoder, StudentTraining
from agpo.student import distil as stage
from agpo.student import export
from agpo.student.distil import distil
from agpo.student.examples import read_judged
from agpo.student.scores import StudentScores
from tests.agpo.student.labelled_shop import SCHEME, TINY, make_work, read_folder
from tests.tiny_model import write_tiny_model

BASELINES = ["majority", "tfidf", "overlap", "crosses", "gold_only"]


@pytest.fixture(scope="module")
def made(problems: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    work = make_work(tmp_path_factory.mktemp("distil"), problems=problems, labels=labels)
    return distil(TINY, work), work.out


def read_scores(out: Path) -> StudentScores:
    return StudentScores.model_validate_json((out / "scores.json").read_text())


def test_what_a_student_consists_of(made: tuple[dict[str, Any], Path]) -> None:
    names = set(read_folder(made[1]))
    assert {"student.json", "tokenizer.json", "predictions.parquet", "scores.json"} <= names
    assert {"macro_f1.png", "reliability.png", "cases.png"} <= names
    assert {"encoder/config.json", "encoder/model.safetensors", "encoder/tokenizer.json"} <= names
    assert len([name for name in names if name.endswith(".onnx")]) == 1
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_figures_of_the_run(made: tuple[dict[str, Any], Path]) -> None:
    found, out = made
    metrics, scores = found["metrics"], read_scores(out)
    assert found["rows"] == metrics["student/pairs"] == 130
    assert (scores.labelled_pairs, scores.gold_pairs) == (70, 60)
    assert set(metrics) >= {f"student/{name}/macro_f1" for name in BASELINES}
    assert metrics["student/macro_f1"] == scores.models["student"].macro_f1.value
    assert metrics["student/temperature"] == json.loads((out / "student.json").read_text())["temperature"]
    assert all(np.isfinite(value) for value in metrics.values())


def test_every_model_predicts_every_confirmation_pair(made: tuple[dict[str, Any], Path], problems: Path) -> None:
    predictions = read_table(made[1], "predictions.parquet", Predictions)
    wanted = set(read_table(problems, "pairs.parquet", Pairs).filter(pl.col("split") == "confirmation")["id"])
    assert set(predictions["model"]) == {"student", *BASELINES}
    for (_,), rows in predictions.partition_by("model", as_dict=True).items():
        assert set(rows["pair_id"]) == wanted
        np.testing.assert_allclose(rows["probabilities"].list.sum(), 1, atol=1e-6)


def test_the_students_predictions_are_what_it_serves(made: tuple[dict[str, Any], Path], problems: Path) -> None:
    rows = read_table(made[1], "predictions.parquet", Predictions).filter(pl.col("model") == "student")
    confirmation = read_judged(problems, SCHEME)["confirmation"]
    assert rows["pair_id"].to_list() == confirmation.pairs["id"].to_list()
    np.testing.assert_array_equal(rows["probabilities"].to_list(), export.score(made[1], confirmation))
    wrong = (rows["gold"] != rows["label"]).sum()
    assert read_scores(made[1]).models["student"].accuracy.value == pytest.approx(1 - wrong / 50)


def test_a_stopped_distillation_ends_in_the_same_bytes(
    made: tuple[dict[str, Any], Path], problems: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[Path] = []
    start = stage.start_encoder

    def count(*arguments: Any) -> None:
        starts.append(arguments[-1])
        start(*arguments)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "start_encoder", count)
    with monkeypatch.context() as broken:
        broken.setattr(export, "export_student", stop)
        with pytest.raises(KeyboardInterrupt):
            distil(TINY, make_work(tmp_path, problems=problems, labels=labels))
    assert len(starts) == 1
    (tmp_path / "out").rmdir()
    work = make_work(tmp_path, problems=problems, labels=labels)
    assert distil(TINY, work) == made[0]
    assert read_folder(work.out) == read_folder(made[1])
    assert len(starts) == 2  # the finished student is not trained again; gold_only is


@pytest.mark.slow
def test_a_killed_distillation_ends_in_the_same_bytes(
    made: tuple[dict[str, Any], Path], problems: Path, labels: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from agpo.student.distil import distil;"
        "from tests.agpo.student.labelled_shop import TINY, make_work; torch.set_num_threads(1);"
        "root, problems, labels = map(Path, sys.argv[1:]);"
        "distil(TINY, make_work(root, problems=problems, labels=labels))"
    )
    first = tmp_path / "first"
    child = subprocess.Popen([sys.executable, "-c", code, str(first), str(problems), str(labels)])
    while not (first / "partial" / "aligned" / "checkpoint.json").exists() and child.poll() is None:
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    (first / "partial").rename(tmp_path / "partial")
    work = make_work(tmp_path, problems=problems, labels=labels)
    assert distil(TINY, work) == made[0]
    assert read_folder(work.out) == read_folder(made[1])


def test_the_best_encoder_on_the_choice_half_is_the_student(problems: Path, labels: Path, tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", width=16)
    idle = BaseEncoder(training=StudentTraining(epochs=1, batch=64, rate=1e-9))
    settings = TINY.model_copy(update={"encoders": (idle, *TINY.encoders, idle)})
    work = make_work(tmp_path / "work", problems=problems, labels=labels, base=base)
    distil(settings, work)
    scores = read_scores(work.out)
    assert list(scores.choice) == ["base-1", "aligned", "base-2"]
    assert scores.choice["base-1"] == scores.choice["base-2"]
    assert scores.encoder == max(scores.choice, key=scores.choice.__getitem__)  # of equals the first
    templates = json.loads((work.out / "student.json").read_text())["templates"]
    assert len(templates) == (2 if scores.encoder == "aligned" else 1)


def test_without_labels_the_student_learns_from_gold_alone(problems: Path, tmp_path: Path) -> None:
    work = make_work(tmp_path, problems=problems)
    found = distil(TINY, work)
    assert found["rows"] == 60
    assert "gold_only" not in read_scores(work.out).models


def test_gold_without_weight_is_left_out(problems: Path, tmp_path: Path) -> None:
    alone = TINY.model_copy(update={"gold_weight": 0.0})
    with pytest.raises(ValueError, match=r"distil\.gold_weight = 0 and no labels leave nothing to learn"):
        distil(alone, make_work(tmp_path, problems=problems))


@pytest.mark.parametrize("split", ["train", "selection", "confirmation"])
def test_a_split_without_judged_pairs_is_refused(split: str, problems: Path, tmp_path: Path) -> None:
    pairs = read_table(problems, "pairs.parquet", Pairs).filter(pl.col("split") != split)
    (tmp_path / "problems").mkdir()
    pairs.write_parquet(tmp_path / "problems" / "pairs.parquet")
    with pytest.raises(ValueError, match=rf"no judged pair in the {split} split; raise problems\.{split}"):
        distil(TINY, make_work(tmp_path / "work", problems=tmp_path / "problems"))
