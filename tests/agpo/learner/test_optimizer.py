from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agpo.learner.optimizer import load_optimizer, measure_step, predict_step, save_optimizer
from tests.agpo.learner.models import tiny_model


def make(seed: int) -> tuple[Any, torch.optim.Optimizer]:
    model = tiny_model("llama", torch.float32, seed)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.99), fused=True)


def take_steps(model: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        set_gradients(model, step)
        optimizer.step()


def set_gradients(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def test_after_saving_and_loading_it_goes_on_bit_by_bit(tmp_path: Path) -> None:
    model, optimizer = make(seed=0)
    take_steps(model, optimizer, range(3))
    save_optimizer(model, optimizer, tmp_path / "optimizer.safetensors")
    again, fresh = make(seed=1)
    again.load_state_dict(model.state_dict())
    load_optimizer(again, fresh, tmp_path / "optimizer.safetensors")
    for one, other in ((model, optimizer), (again, fresh)):
        take_steps(one, other, range(3, 6))
    for expected, found in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        model, optimizer = make(seed=0)
        take_steps(model, optimizer, range(2))
        save_optimizer(model, optimizer, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_what_was_there_before_is_gone(tmp_path: Path) -> None:
    model, optimizer = make(seed=0)
    save_optimizer(model, optimizer, tmp_path / "fresh.safetensors")
    take_steps(model, optimizer, range(2))
    load_optimizer(model, optimizer, tmp_path / "fresh.safetensors")
    assert not optimizer.state


def test_a_foreign_name_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "optimizer.safetensors"
    model, optimizer = make(seed=0)
    take_steps(model, optimizer, range(1))
    save_optimizer(model, optimizer, file)
    save_file({**load_file(file), "model.layers.9.weight/exp_avg": torch.zeros(2)}, file)
    with pytest.raises(
        ValueError, match=r"optimizer\.safetensors names model\.layers\.9\.weight, which the model does"
    ):
        load_optimizer(model, optimizer, file)


class TestPredictedStep:
    """What AdamW will do, against what it then does."""

    @pytest.mark.parametrize("decay", [0.0, 0.1])
    @pytest.mark.parametrize("done", [0, 1, 7])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
    def test_is_the_step_that_is_taken(self, dtype: torch.dtype, tolerance: float, done: int, decay: float) -> None:
        model = tiny_model("llama", dtype)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=decay, fused=dtype is torch.float32
        )
        take_steps(model, optimizer, range(done))
        set_gradients(model, seed=done)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        predicted, size = list(chain(*predict_step(optimizer))), measure_step(optimizer)
        optimizer.step()
        taken = [part.detach() - start for part, start in zip(model.parameters(), before, strict=True)]
        for found, expected in zip(predicted, taken, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
        flat = torch.cat([change.flatten() for change in taken]).double().numpy()
        assert size == pytest.approx(float(np.sqrt(np.mean(flat**2))) / 0.01, rel=1e-4)

    def test_changes_nothing(self) -> None:
        (model, optimizer), (other, plain) = make(seed=0), make(seed=0)
        for one, own in ((model, optimizer), (other, plain)):
            take_steps(one, own, range(2))
            set_gradients(one, seed=2)
        measure_step(optimizer)
        for own in (optimizer, plain):
            own.step()
        for expected, found in zip(other.parameters(), model.parameters(), strict=True):
            assert torch.equal(expected, found)

    def test_the_first_one_moves_every_weight_by_the_rate(self) -> None:
        model, optimizer = make(seed=0)
        set_gradients(model, seed=0)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"] = 1e-4, 0.0
        assert measure_step(optimizer) == pytest.approx(1.0, rel=1e-3)
