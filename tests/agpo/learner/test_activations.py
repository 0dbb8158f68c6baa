from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agpo.learner.activations import checkpoint_layers
from agpo.learner.policy import LogprobReader
from tests.agpo.learner.models import random_rows, tiny_model
from tests.agpo.learner.test_update import FREE, WITH_ALL, gradients, learner_of, make, state

CHECKPOINTED = FREE.model_copy(update={"checkpoint_activations": True})


@pytest.mark.parametrize("kind", ["llama-biased", "qwen3", "gpt2", "gemma2"])
def test_gradients_are_exactly_those_without(kind: str) -> None:
    found = [
        gradients(learner_of(kind, WITH_ALL, settings, torch.float32), make()) for settings in (FREE, CHECKPOINTED)
    ]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_runs_are_exactly_those_without_also_with_several_steps() -> None:
    several = {"mini_batches": 2, "epochs": 2}
    states = []
    for settings in (FREE, CHECKPOINTED):
        learner = learner_of("qwen3", WITH_ALL, settings.model_copy(update=several), torch.float32)
        for step in range(3):
            assert learner.update(make(seed=step), step).refused is None
        states.append(state(learner))
    assert states[0] == states[1]


def test_a_small_llama_takes_the_layers_that_can_be_checkpointed() -> None:
    found = [gradients(learner_of("llama", WITH_ALL, settings), make()) for settings in (FREE, CHECKPOINTED)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=3e-6)  # norms of transformers round to fp32


def test_activations_are_not_kept() -> None:
    def count_kept(checkpoint: bool) -> int:
        """Numbers that the forward pass keeps for the backward pass, without the weights."""
        reader, kept = LogprobReader(tiny_model("qwen3"), checkpoint=checkpoint), list[Tensor]()

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            reader.read(*random_rows([(3, 20)] * 4), 1.0)
        return sum(tensor.numel() for tensor in kept if not isinstance(tensor, nn.Parameter))

    assert count_kept(True) < count_kept(False) / 3


def test_nothing_changes_without_gradients() -> None:
    model, calls = tiny_model("gpt2"), list[Any]()
    checkpoint_layers(model)
    model.transformer.h[0].mlp.register_forward_hook(lambda *_: calls.append(None))
    with torch.inference_mode():
        model(input_ids=torch.tensor([[1, 5, 6]]), use_cache=True)
    assert len(calls) == 1


def test_dropout_stays_off() -> None:
    """The switch of transformers works in training mode only; GPT-2 has dropout there."""
    model = tiny_model("gpt2")
    assert model.config.resid_pdrop > 0
    reader = LogprobReader(model, checkpoint=True)
    rows = random_rows([(3, 4)])
    assert torch.equal(reader.read(*rows, 1.0)[0], reader.read(*rows, 1.0)[0])


def test_a_model_without_such_layers_is_an_error() -> None:
    model = nn.Linear(2, 2)
    model.config = type("Config", (), {"model_type": "strange"})()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"learner\.checkpoint_activations = true: a model of type strange has no"):
        checkpoint_layers(model)
