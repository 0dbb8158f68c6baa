"""One optimiser step of a small Llama, by our learner and by TRL's trainer: the same gradient, and whose takes longer.

Generation is left out. Both run in this process on one thread, in turn; the figure is the least CPU time of all
repetitions, which other work on the machine disturbs least.
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agpo.learner.batch import Batch
from agpo.learner.update import Learner
from agpo.settings import GuardSettings, LearnerSettings, LossSettings
from tests.cpu_time import least_times
from tests.parity.small_llama import VOCABULARY, make_llama, make_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]

ROWS, PROMPT, SHORTEST, LONGEST = 64, 16, 8, 64
REPEATS = 8


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Groups of 8 answers to a prompt, all prompts of one length: TRL pads on the left, which moves the positions."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (ROWS,), generator=generator).tolist()
    return Batch(
        ids=[str(row) for row in range(ROWS)],
        prompts=torch.randint(4, VOCABULARY, (ROWS // 8, PROMPT), generator=generator).repeat_interleave(8, 0).tolist(),
        responses=[torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in lengths],
        sampled_logprobs=[[-math.log(VOCABULARY)] * length for length in lengths],
        groups=torch.arange(ROWS) // 8,
        correct=torch.arange(ROWS) % 2 == 0,
        advantages=torch.randn(ROWS, generator=generator, dtype=torch.float64),
    )


def make_learner(model: Any, **options: Any) -> Learner:
    return Learner(model, None, LossSettings(), LearnerSettings(rate=1e-6, **options), 1.0, seed=0)


def make_trainer(model: Any, batch: Batch, output: Path) -> Any:
    """A ``GRPOTrainer`` whose rollouts are those of the batch."""
    from datasets import Dataset

    trl = import_module("trl")
    config = trl.GRPOConfig(
        output_dir=str(output),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=ROWS,
        num_generations=8,
        max_completion_length=LONGEST,
        report_to="none",
        loss_type="dapo",
    )
    model.set_attn_implementation("sdpa")
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=make_tokenizer(),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "<4>"}] * 8),
    )
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    rollouts = _as_trl(batch, model.dtype)
    trainer._prepare_inputs = lambda _: rollouts
    return trainer


def _as_trl(batch: Batch, dtype: torch.dtype) -> dict[str, Tensor]:
    longest = max(map(len, batch.responses))
    prompts = torch.tensor(batch.prompts)
    responses = torch.tensor([response + [0] * (longest - len(response)) for response in batch.responses])
    return {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": responses,
        "completion_mask": (responses != 0).long(),
        "advantages": batch.advantages.to(dtype),
        "num_items_in_batch": batch.response_tokens.sum(),
    }


def test_the_gradient_is_that_of_trl(batch: Batch, tmp_path: Path) -> None:
    """Of a model in fp64, up to the fp32 in which TRL computes its head and `transformers` its norms."""
    trainer = make_trainer(make_llama(PROMPT + LONGEST).double(), batch, tmp_path)
    trainer.training_step(trainer.model, None, None)
    learner = make_learner(make_llama(PROMPT + LONGEST).double(), clip_norm=1e9)
    assert learner.update(batch, step=0).refused is None
    expected = dict(trainer.model.named_parameters())
    for name, parameter in learner.model.named_parameters():
        apart = (parameter.grad - expected[name].grad).norm() / expected[name].grad.norm()
        assert apart < 1e-6, name


def test_a_step_takes_less_time_than_that_of_trl(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with the default guards, which read the policy again and which TRL does not have."""
    guarded = make_learner(make_llama(PROMPT + LONGEST))
    none = {name: 0 for name in GuardSettings.model_fields if name != "rows"}
    plain = make_learner(make_llama(PROMPT + LONGEST), guards=GuardSettings.model_validate(none))
    trainer = make_trainer(make_llama(PROMPT + LONGEST), batch, tmp_path)

    def step_of_trl() -> None:
        trainer.training_step(trainer.model, None, None)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()

    ours, with_guards, theirs = least_times(
        lambda: plain.update(batch, step=0), lambda: guarded.update(batch, step=0), step_of_trl, repeats=REPEATS
    )
    tokens = ROWS * PROMPT + int(batch.response_tokens.sum())
    with capsys.disabled():
        print(f"\nupdate of {ROWS} rows, {tokens} tokens, responses of {SHORTEST} to {LONGEST}:")
        for name, seconds in (("TRL", theirs), ("ours", ours), ("ours with the default guards", with_guards)):
            print(f"  {name}: {tokens / seconds:,.0f} tokens per CPU-second, {theirs / seconds:.2f} times TRL's")
    assert with_guards < theirs / 1.5
