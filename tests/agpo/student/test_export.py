"""What is served is what was trained, and rounding is kept only where it changes almost no label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from sentence_transformers import CrossEncoder

from agpo.settings.distil import BaseEncoder, Encoder
from agpo.student import export
from agpo.student.encoder import rendering_of, start_encoder
from agpo.student.examples import Examples, FloatArray, read_judged
from agpo.student.scorer import Scorer
from agpo.student.scores import Export
from agpo.student.training import load_encoder, predict
from tests.agpo.student.labelled_shop import SCHEME, TINY
from tests.tiny_model import write_tiny_model

ALIGNED = TINY.encoders[0]


@pytest.fixture(scope="module")
def selection(problems: Path) -> Examples:
    """With one pair that is longer than what an encoder reads, on both sides."""
    found = read_judged(problems, SCHEME)["selection"]
    first = pl.int_range(pl.len()) == 0
    longer = [
        pl.when(first).then(pl.lit(" ".join([word] * 60))).otherwise(word).alias(word) for word in ("query", "title")
    ]
    return Examples(found.pairs.with_columns(longer), found.targets, found.judged)


def make_encoder(root: Path, encoder: Encoder, examples: Examples, seed: int) -> CrossEncoder:
    base = write_tiny_model(root / "base", width=16)
    start_encoder(encoder, examples, TINY.length, {"base": base}, seed, root / "start")
    return load_encoder(root / "start", "cpu").eval()


class Served(NamedTuple):
    """An exported encoder with what torch gave before."""

    folder: Path
    expected: FloatArray
    report: Export


@pytest.fixture(scope="module", params=[ALIGNED, BaseEncoder()], ids=["aligned", "base"])
def served(request: pytest.FixtureRequest, selection: Examples, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder, rendering = tmp_path_factory.mktemp("served"), rendering_of(request.param)
    model = make_encoder(folder, request.param, selection, seed=0)
    expected = predict(model, selection.render(rendering))
    settings = TINY.model_copy(update={"int8_agreement": 0.5, "int8_drop": 1.0})
    return Served(folder, expected, export.export_student(model, rendering, settings, SCHEME, selection, folder))


def test_the_folder_serves_what_torch_gives(served: Served, selection: Examples) -> None:
    assert served.report.largest_difference < 1e-4
    np.testing.assert_allclose(export.score(served.folder, selection), served.expected, atol=0.05)
    assert [label.letter for label in Scorer(served.folder).labels] == ["I", "C", "S", "E"]


def test_only_the_graph_that_serves_is_kept(served: Served) -> None:
    assert served.report.int8_kept
    names = {path.name for path in served.folder.iterdir() if path.is_file()}
    assert names == {"student.json", "student.int8.onnx", "tokenizer.json"}
    assert served.report.bytes == (served.folder / "student.int8.onnx").stat().st_size


def test_the_graph_says_nothing_of_this_machine(served: Served) -> None:
    graph = (served.folder / "student.int8.onnx").read_bytes()
    assert not [part for part in (b"site-packages", b"stack_trace", b"/agpo/student/", b".py") if part in graph]


def test_the_encoders_folder_is_the_encoder(served: Served, selection: Examples) -> None:
    again = load_encoder(served.folder / "encoder", "cpu").eval()
    templates = json.loads((served.folder / "student.json").read_text())["templates"]
    texts = selection.render("pair" if len(templates) == 2 else "text")
    np.testing.assert_array_equal(predict(again, texts), served.expected)


def test_the_temperature_reaches_what_is_served(served: Served, selection: Examples, tmp_path: Path) -> None:
    folder = shutil.copytree(served.folder, tmp_path / "copy")
    hot = export.score(folder, selection)
    export.set_temperature(folder, 0.5)
    np.testing.assert_allclose(export.score(folder, selection), hot**2 / (hot**2).sum(1, keepdims=True), rtol=1e-6)


@pytest.fixture
def other_graph(selection: Examples, tmp_path: Path) -> Path:
    """Of an encoder with other weights."""
    model = make_encoder(tmp_path / "other", ALIGNED, selection, seed=1)
    export._write_graph(model, ["input_ids", "attention_mask", "token_type_ids"], TINY.length, tmp_path / "other.onnx")
    return tmp_path / "other.onnx"


def test_rounding_that_changes_labels_is_not_kept(
    selection: Examples, other_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_encoder(tmp_path, ALIGNED, selection, seed=0)
    expected = predict(model, selection.render("pair"))
    monkeypatch.setattr(export, "_quantise", lambda _, target: shutil.copy(other_graph, target))
    found = export.export_student(model, "pair", TINY, SCHEME, selection, tmp_path)
    assert not found.int8_kept
    assert found.int8_agreement < 0.99
    assert json.loads((tmp_path / "student.json").read_text())["model"] == "student.onnx"
    assert not (tmp_path / "student.int8.onnx").exists()
    np.testing.assert_allclose(export.score(tmp_path, selection), expected, atol=1e-5)


def test_a_graph_that_gives_something_else_is_refused(
    selection: Examples, other_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_encoder(tmp_path, ALIGNED, selection, seed=0)
    monkeypatch.setattr(export, "_write_graph", lambda *arguments: shutil.copy(other_graph, arguments[-1]))
    with pytest.raises(RuntimeError, match="log-probabilities differ by"):
        export.export_student(model, "pair", TINY, SCHEME, selection, tmp_path)
