"""The engine of a training run: it samples the policy that the learner has changed last."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from agpo.rollout.chunk import Chunk
from agpo.rollout.engine import Engine, Sampling
from agpo.rollout.engines import leave_vllm, take_vllm
from agpo.rollout.fingerprint import check_fingerprint
from agpo.rollout.local_engine import LocalEngine
from agpo.rollout.saved_engine import SavedEngine
from agpo.rollout.vllm_engine import VllmEngine
from agpo.settings.engine import EmbeddedEngine, SavedRollouts, TrainingEngine
from agpo.settings.vllm import VllmSettings

if TYPE_CHECKING:
    from agpo.learner.adapter import Adapter

_SHARED_MEMORY = Path("/dev/shm")
# Nats, of log-probs after the fixed prompts: what rounding makes, and no other weights do (our choice).
_LARGEST_DIFFERENCE = {"float32": 0.01, "bfloat16": 0.2, "float16": 0.2}


class LiveEngine:
    """Samples a model in training, by whichever engine; one with a process of its own starts when it is first needed.

    Before it samples another policy than before, such an engine gets the new weights in place and is asked for its
    fingerprint, which must be the learner's: RuntimeError where it samples other weights.
    """

    def __init__(
        self,
        settings: TrainingEngine,
        model: Any,
        tokenizer: Any,
        stops: set[int],
        *,
        run: str,
        log: Path,
        adapter: Adapter | None = None,
    ) -> None:
        """``run``: the run's key, by which weights that are handed over are found again after a kill.

        ``adapter``: all that training changes of the model, where there is one. This process samples the merged
        weights; an engine with a process of its own has the base and is handed the adapter.
        """
        self._settings, self._model, self._tokenizer = settings, model, tokenizer
        self._stops, self._run, self._log = stops, run, log
        self._policy = ""  # key of the policy that the engine has
        self._hand_overs = 0
        self._asleep = False
        self._adapter = adapter
        # The embedded sampler is more than twice as fast without adapters; for a fingerprint that is no matter.
        merging = adapter is not None and isinstance(settings, EmbeddedEngine)
        self._local = LocalEngine(adapter.merge() if adapter is not None and merging else model, stops)
        self._saved = SavedEngine(settings.journal) if isinstance(settings, SavedRollouts) else None
        self._engine: VllmEngine | None = None
        self.metrics: dict[str, float] = {}  # of the last hand-over

    def generate(
        self,
        chunk: Chunk,
        prompts: Mapping[str, Sequence[int]],
        sampling: Sampling,
        *,
        step: int,
        policy: str,
        progress: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        """See `Engine.generate`; ``policy`` is the key of the model as it is now."""
        if self._saved is not None:
            return self._saved.generate(chunk, prompts, sampling, step=step)
        engine: Engine = self._local
        if isinstance(self._settings, VllmSettings):
            engine = self._follow(self._settings, policy)
        elif self._adapter is not None and policy != self._policy:
            self._adapter.merge()
            self._policy = policy
        return engine.generate(chunk, prompts, sampling, step=step, policy=policy, progress=progress)

    def rest(self) -> None:
        """Leave the accelerator to the learner until the next answers."""
        if self._engine is not None and not self._asleep:
            self._engine.sleep()
            self._asleep = True

    def close(self) -> None:
        if self._engine is not None:
            leave_vllm(self._engine)
            self._engine = None
        if self._hand_overs:
            shutil.rmtree(self._weights_folder, ignore_errors=True)

    def _follow(self, settings: VllmSettings, policy: str) -> VllmEngine:
        """The engine, awake and with the model as it is now."""
        if self._engine is not None and self._asleep:
            self._engine.wake()
            self._asleep = False
        if self._engine is None or policy != self._policy:
            self._hand_over(settings)
            self._policy = policy
        assert self._engine is not None
        return self._engine

    def _hand_over(self, settings: VllmSettings) -> None:
        from agpo.learner.policy import save_policy

        started = time.monotonic()
        if not self._hand_overs:
            shutil.rmtree(self._weights_folder, ignore_errors=True)  # of a session that was killed
        self._hand_overs += 1
        folder = self._weights_folder / str(self._hand_overs)
        folder.mkdir(parents=True)
        if self._adapter is not None:
            self._adapter.save(folder)
            if self._engine is None:
                base, rank = self._adapter.folder, self._adapter.rank
                self._engine = take_vllm(base, self._stops, settings, self._log, lora_rank=rank)
            self._engine.load_adapter(folder)
        else:
            save_policy(self._model, self._tokenizer, folder)
            if self._engine is None:
                self._engine = take_vllm(folder, self._stops, settings, self._log)
            else:
                self._engine.load_policy(folder)
        shutil.rmtree(self._weights_folder / str(self._hand_overs - 1), ignore_errors=True)
        synced = time.monotonic()
        bound = _LARGEST_DIFFERENCE[settings.dtype]
        try:
            difference = check_fingerprint(self._engine.fingerprint(), self._local.fingerprint(), bound)
        except BaseException:  # nobody may take this engine
            self._engine.close()
            self._engine = None
            raise
        self.metrics = {
            "time/sync": synced - started,
            "time/probe": time.monotonic() - synced,
            "rollout/probe_difference": difference,
        }

    @property
    def _weights_folder(self) -> Path:
        named = self._settings.weights if isinstance(self._settings, VllmSettings) else ""
        shared = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
        return (Path(named) if named else shared) / f"agpo-weights-{self._run[:16]}"
