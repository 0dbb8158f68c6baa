"""What the loss is, and that a training that was stopped ends where an uninterrupted one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agpo.artifacts import Files
from agpo.settings.distil import Distilling, StudentTraining
from agpo.student import training
from agpo.student.encoder import start_encoder
from agpo.student.examples import Examples, read_judged, read_voted
from agpo.student.training import VoteLoss, load_encoder, predict, save_encoder, train_encoder
from tests.agpo.student.labelled_shop import SCHEME, TINY, make_work, read_folder

STEPS = 12


class FixedScores:
    """A model whose logits are known."""

    device = torch.device("cpu")

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def preprocess(self, rows: list[Any]) -> dict[str, Any]:
        assert len(rows) == len(self.logits)
        return {}

    def __call__(self, features: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"scores": self.logits}


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (2.0, 0.3)])
def test_the_loss_of_votes_and_gold(temperature: float, weight: float) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.1, -2.0]])
    votes = torch.tensor([0.75, 0.25, 0.0])
    rows = [torch.tensor([0.75, 0.25, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, weight])]
    found = VoteLoss(FixedScores(logits), temperature)([["a", "b"], ["c", "d"]], rows)
    softened = votes ** (1 / temperature) / (votes ** (1 / temperature)).sum()
    student = (logits[0] / temperature).softmax(-1)
    divergence = (softened * (softened / student).log()).nansum()
    assert found["votes"].item() == pytest.approx(temperature**2 * divergence.item() / 2, rel=1e-5)
    assert found["gold"].item() == pytest.approx(-weight * logits[1].log_softmax(-1)[2].item() / 2, rel=1e-5)


@pytest.fixture(scope="module")
def examples(problems: Path, labels: Path) -> Examples:
    judged = read_judged(problems, SCHEME)
    return read_voted(labels, SCHEME, judged) + judged["train"]


@pytest.fixture(scope="module")
def start(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    start_encoder(TINY.encoders[0], examples, TINY.length, {}, 0, folder)
    return folder


def train(start: Path, examples: Examples, root: Path, settings: Distilling = TINY) -> dict[str, bytes]:
    """The trained folder's files; what a stopped training kept in ``root`` stays."""
    partial = Files(root / "partial")
    model = train_encoder(start, examples, settings.encoders[0], settings, STEPS, make_work(root / "work"), partial)
    save_encoder(model, root / "trained")
    return read_folder(root / "trained")


@pytest.fixture(scope="module")
def uninterrupted(start: Path, examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return train(start, examples, tmp_path_factory.mktemp("uninterrupted"))


def test_a_stopped_training_ends_in_the_same_bytes(
    start: Path, examples: Examples, uninterrupted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    class Stop(training._Keeper):
        def on_step_end(self, args: Any, state: Any, control: Any, **other: Any) -> None:
            if state.global_step == 10 and 10 not in steps:
                steps.append(10)
                raise KeyboardInterrupt
            steps.append(state.global_step)

    monkeypatch.setattr(training, "_Keeper", Stop)
    with pytest.raises(KeyboardInterrupt):
        train(start, examples, tmp_path)
    (tmp_path / "work" / "out").rmdir()
    assert train(start, examples, tmp_path) == uninterrupted
    assert steps == [*range(1, 11), *range(9, 13)]  # from the checkpoint at step 8


def test_training_moves_the_weights(start: Path, uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(uninterrupted["model.safetensors"])
    trained, before = load_file(tmp_path / "model.safetensors"), load_file(start / "model.safetensors")
    assert trained.keys() == before.keys()
    assert all(not torch.equal(trained[name], before[name]) for name in before if "classifier" in name)


def test_the_weight_of_gold_matters(
    start: Path, examples: Examples, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    other = train(start, examples, tmp_path, TINY.model_copy(update={"gold_weight": 0.2}))
    assert other["model.safetensors"] != uninterrupted["model.safetensors"]


def test_a_loss_that_is_not_finite_stops(start: Path, examples: Examples, tmp_path: Path) -> None:
    wild = StudentTraining(epochs=3, batch=32, rate=1e30)
    settings = TINY.model_copy(update={"encoders": (TINY.encoders[0].model_copy(update={"training": wild}),)})
    with pytest.raises(FloatingPointError, match=r"encoder aligned and training\.rate = 1e\+30; lower it"):
        train(start, examples, tmp_path, settings)


def test_probabilities_do_not_depend_on_the_batch(start: Path, examples: Examples) -> None:
    model = load_encoder(start, "cpu").eval()
    texts = examples.render("pair")[:20]
    found = predict(model, texts)
    assert found.shape == (20, 4)
    assert abs(found.sum(1) - 1).max() < 1e-6
    assert abs(predict(model, texts, batch=3) - found).max() < 1e-5
