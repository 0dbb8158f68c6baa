from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from agpo.learner.interpolate import interpolate
from agpo.learner.policy import save_policy
from agpo.settings import Interpolation
from agpo.stages import INTERPOLATE
from tests.agpo.learner.conftest import MakeWork
from tests.agpo.learner.models import tiny_model


@pytest.fixture
def folders(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Path]:
    folders = {name: tmp_path / name for name in ("base", "trained")}
    for seed, folder in enumerate(folders.values()):
        save_policy(tiny_model("llama", torch.float32, seed), tokenizer, folder)
    return folders


def test_the_stage_names_this_function() -> None:
    assert INTERPOLATE.load() is interpolate


def test_weight_1_gives_the_trained_bytes(folders: dict[str, Path], make_work: MakeWork) -> None:
    work = make_work(**folders)
    assert interpolate(Interpolation(weight=1), work)["metrics"] == {"interpolate/weight": 1}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (work.out / name).read_bytes() == (folders["trained"] / name).read_bytes()


@pytest.mark.parametrize("weight", [0.2, 0.5, 0.7])
def test_every_tensor_is_interpolated_once(weight: float, folders: dict[str, Path], make_work: MakeWork) -> None:
    work = make_work(**folders)
    interpolate(Interpolation(weight=weight), work)
    base, trained, found = (
        load_file(folder / "model.safetensors") for folder in (folders["base"], folders["trained"], work.out)
    )
    assert base.keys() == found.keys()
    assert "model.embed_tokens.weight" in found and "lm_head.weight" not in found  # tied: one tensor
    for name, tensor in found.items():
        expected = (1 - weight) * base[name].double() + weight * trained[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("kind", "width"), [("llama", 32), ("llama-biased", 16), ("gpt2", 16)])
def test_another_architecture_is_refused(
    kind: str, width: int, folders: dict[str, Path], tokenizer: PreTrainedTokenizerFast, make_work: MakeWork
) -> None:
    save_policy(tiny_model(kind, torch.float32, width=width), tokenizer, folders["base"])
    with pytest.raises(ValueError, match="base and trained policy have different architectures"):
        interpolate(Interpolation(weight=0.5), make_work(**folders))
