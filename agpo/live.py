"""What a training run holds in memory between its tasks: model, learner, engine and verifiers."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agpo.journal import Update
from agpo.settings import TrainRun

if TYPE_CHECKING:
    from agpo.learner.adapter import Adapter

_OPTIMIZER = "optimizer.safetensors"  # of a checkpoint's folder
_ADAPTER = "adapter"  # of a published policy: the folder of the adapter that was merged into it


@dataclass
class Live:
    """``step``: how many steps the policy has taken. ``adapter``: what is trained of it, where that is not all."""

    model: Any
    tokenizer: Any
    adapter: Adapter | None
    learner: Any
    engine: Any
    pool: Any
    step: int
    policy: str
    dirty: bool = False  # the policy is not what the journal says
    updated: bool = False  # the learner has finished the step that made it so

    def go_on(self, update: Update) -> None:
        """The journal now says of ``update`` what this memory has done."""
        self.step, self.policy, self.dirty = update.step + 1, update.policy, False
        self.learner.guard.note(update.refused, update.metrics)

    def close(self) -> None:
        self.pool.close()
        self.engine.close()


def load_live(
    run: TrainRun,
    device: str,
    folder: Path,
    base: Path,
    *,
    step: int,
    policy: str,
    remembered: Iterable[Update],
    key: str,
    log: Path,
) -> Live:
    """The policy of a checkpoint's folder, or without ``step`` the base, with everything that trains it.

    ``remembered``: the updates that the guards have to know of. ``key`` of the run; ``log`` of an engine's process.
    """
    from agpo.learner.adapter import Adapter
    from agpo.learner.optimizer import load_optimizer
    from agpo.learner.policy import load_policy, stop_ids
    from agpo.learner.update import Learner
    from agpo.rollout.live_engine import LiveEngine
    from agpo.verify import VerifierPool

    adapter = reference = None
    if run.learner.lora is not None:
        adapter = Adapter(base, device, run.learner.lora, run.seed)
        if step:
            adapter.load(folder)
        model, tokenizer, reference = adapter.model, adapter.tokenizer, adapter.base
    else:
        if run.loss.kl > 0:
            reference, _ = load_policy(base, device)
            reference.requires_grad_(False)
        model, tokenizer = load_policy(folder, device)
    learner = Learner(model, reference, run.loss, run.learner, run.rollout.temperature, run.seed)
    if step:
        load_optimizer(model, learner.optimizer, folder / _OPTIMIZER)
    for update in remembered:
        learner.guard.note(update.refused, update.metrics)
    engine = LiveEngine(
        run.rollout.engine, model, tokenizer, stop_ids(model, tokenizer), run=key, log=log, adapter=adapter
    )
    pool = VerifierPool(run.verify.workers, run.verify.timeout, run.verify.memory)
    return Live(model, tokenizer, adapter, learner, engine, pool, step, policy)


def save_live(live: Live, folder: Path) -> None:
    """What is trained and the optimiser as a checkpoint's folder: the whole policy, or its adapter."""
    from agpo.learner.optimizer import save_optimizer
    from agpo.learner.policy import save_policy

    if live.adapter is None:
        save_policy(live.model, live.tokenizer, folder)
    else:
        live.adapter.save(folder)
    save_optimizer(live.model, live.learner.optimizer, folder / _OPTIMIZER)


def write_published(run: TrainRun, kept: Path, base: Path, folder: Path) -> None:
    """Make a checkpoint's folder, or the base's, an ordinary Hugging Face folder.

    An adapter is merged into the base, and lies in a folder of its own there, by which the base can be served with it:
    beside the weights `transformers` would load both.
    """
    from agpo.learner.adapter import Adapter
    from agpo.learner.policy import save_policy

    if run.learner.lora is None or not run.steps:
        for file in kept.iterdir():
            if file.is_file() and file.name != _OPTIMIZER:  # not the adapter of a base that was trained as one
                shutil.copy(file, folder / file.name)
        return
    adapter = Adapter(base, "cpu", run.learner.lora, run.seed)
    adapter.load(kept)
    save_policy(adapter.merge(), adapter.tokenizer, folder)
    (folder / _ADAPTER).mkdir()
    adapter.save(folder / _ADAPTER)
