from __future__ import annotations

from agpo.learner.sharing import share_tensors
from tests.agpo.learner.models import tiny_model


def test_modules_and_configuration_are_copied_and_tensors_are_not() -> None:
    model = tiny_model("qwen3")
    other = share_tensors(model)
    for name in ("named_parameters", "named_buffers"):
        own, shared = dict(getattr(model, name)()), dict(getattr(other, name)())
        assert own.keys() == shared.keys()
        assert all(shared[key] is tensor for key, tensor in own.items())
    assert not set(model.modules()) & set(other.modules())
    assert all(module.config is other.config for module in other.modules() if hasattr(module, "config"))
    assert other.config is not model.config
