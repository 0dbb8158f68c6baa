from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agpo.learner.optimizer import load_optimizer, save_optimizer
from tests.agpo.learner.models import tiny_model


def make(seed: int) -> tuple[Any, torch.optim.Optimizer]:
    model = tiny_model("llama", torch.float32, seed)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.99), fused=True)


def take_steps(model: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


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
