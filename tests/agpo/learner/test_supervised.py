from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from agpo.artifacts import Files
from agpo.learner import supervised
from agpo.learner.pairs import EncodedPairs, encode_pairs
from agpo.learner.supervised import _draw_rows, _schedule, train_supervised
from agpo.settings import Supervised
from tests.agpo.learner.models import tiny_model

SETTINGS = Supervised(steps=150, batch=20, rate=0.01, warm_up=10)


@pytest.fixture
def pairs(tokenizer: PreTrainedTokenizerFast, doubling: pl.DataFrame) -> EncodedPairs:
    return encode_pairs(tokenizer, doubling, "none")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_learns_a_trivial_mapping(
    kind: str, tokenizer: PreTrainedTokenizerFast, pairs: EncodedPairs, tmp_path: Path
) -> None:
    model = tiny_model(kind, torch.float32, width=32)
    metrics = train_supervised(model, tokenizer, pairs, SETTINGS, 0, Files(tmp_path))
    ids, chosen = pairs.pad(np.arange(len(pairs)))
    predicted = model(input_ids=ids[:, :-1]).logits.argmax(-1)
    right = (predicted == ids[:, 1:])[chosen[:, 1:]]
    assert right.float().mean() > 0.95
    assert metrics["supervised/steps"] == 150
    assert 0 < metrics["supervised/loss"] < 1  # the mean of the last hundred steps


class TestResume:
    """A training that ended in the middle goes on from its checkpoint and ends in the same bytes."""

    SETTINGS = SETTINGS.model_copy(update={"steps": 25})

    @pytest.fixture(autouse=True)
    def _training(
        self,
        tokenizer: PreTrainedTokenizerFast,
        pairs: EncodedPairs,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.tokenizer, self.pairs, self.folder, self.monkeypatch = tokenizer, pairs, tmp_path, monkeypatch
        monkeypatch.setattr(supervised, "_CHECKPOINT_EVERY", 10)

    def train(self, partial: str, kind: str = "llama") -> tuple[dict[str, float], list[bytes]]:
        model = tiny_model(kind, torch.float32)
        files = Files(self.folder / partial)
        metrics = train_supervised(model, self.tokenizer, self.pairs, self.SETTINGS, 0, files)
        return metrics, [parameter.detach().numpy().tobytes() for parameter in model.parameters()]

    def kill(self, partial: str, name: str, call: int, kind: str = "llama") -> None:
        """End a training in its ``call``-th call of a function of the module."""
        function, calls = getattr(supervised, name), []

        def fail(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt
            return function(*arguments)

        with self.monkeypatch.context() as patch:
            patch.setattr(supervised, name, fail)
            with pytest.raises(KeyboardInterrupt):
                self.train(partial, kind)

    @pytest.mark.parametrize("kind", ["llama", "gpt2"])  # gpt2 has dropout, which a training of ours leaves out
    @pytest.mark.parametrize("step", [5, 10, 17, 24])
    def test_after_a_kill_at_a_step(self, kind: str, step: int) -> None:
        self.kill("killed", "_draw_rows", step + 1, kind)
        assert self.train("killed", kind) == self.train("whole", kind)

    def test_after_a_kill_in_a_checkpoint(self) -> None:
        self.kill("killed", "save_optimizer", 2)
        self.kill("killed", "_draw_rows", 1)  # and once more, with nothing done in between
        assert self.train("killed") == self.train("whole")

    def test_begins_at_the_checkpoint(self) -> None:
        self.kill("killed", "_draw_rows", 24)
        steps: list[int] = []

        def note(count: int, batch: int, step: int, seed: int) -> Any:
            steps.append(step)
            return _draw_rows(count, batch, step, seed)

        self.monkeypatch.setattr(supervised, "_draw_rows", note)
        self.train("killed")
        assert steps == [20, 21, 22, 23, 24]

    def test_only_the_newest_checkpoint_is_kept(self) -> None:
        self.kill("killed", "_draw_rows", 24)
        assert Files(self.folder / "killed").folders() == ["step-00000020"]


def test_a_loss_that_is_not_finite_names_the_setting(
    tokenizer: PreTrainedTokenizerFast, pairs: EncodedPairs, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"rate": 1e38, "warm_up": 0})
    message = r"^supervised training: the loss is nan at step 1 with base\.training\.rate = 1e\+38; lower it$"
    with pytest.raises(FloatingPointError, match=message):
        train_supervised(tiny_model("llama", torch.float32), tokenizer, pairs, settings, 0, Files(tmp_path))


def test_no_step_changes_nothing(tokenizer: PreTrainedTokenizerFast, pairs: EncodedPairs, tmp_path: Path) -> None:
    model = tiny_model("llama")
    before = [parameter.clone() for parameter in model.parameters()]
    train_supervised(model, tokenizer, pairs, SETTINGS.model_copy(update={"steps": 0}), 0, Files(tmp_path))
    for parameter, start in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, start)


def test_rows_are_drawn_as_permutations_one_after_the_other() -> None:
    drawn = np.concatenate([_draw_rows(7, 5, step, seed=3) for step in range(7)])
    for epoch in drawn.reshape(5, 7):
        assert sorted(epoch) == list(range(7))
    assert not np.array_equal(drawn[:7], drawn[7:14])
    assert not np.array_equal(drawn[:7], np.concatenate([_draw_rows(7, 5, step, seed=4) for step in range(2)])[:7])


def test_a_batch_may_be_larger_than_the_data() -> None:
    rows = _draw_rows(2, 5, 0, seed=0)
    assert sorted(rows[:2]) == sorted(rows[2:4]) == [0, 1]
    assert len(rows) == 5


def test_the_rate_rises_stays_and_falls() -> None:
    settings = Supervised(steps=100, warm_up=10)
    rates = [_schedule(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:71] == [1.0] * 62
    assert rates[85] == pytest.approx(0.5)
    assert rates[-1] == 0.05
