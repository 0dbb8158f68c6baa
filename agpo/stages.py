"""The stages: pure functions with a version, run once per key.

A stage's key is a digest of its name, version, settings, input keys and, where it computes, of the machine's class.
Looking up, running and publishing go through `StageRun` for Prefect tasks, the command line and a notebook alike.
This module imports no stage: the plan of a run is known without loading torch.
"""

from __future__ import annotations

import importlib
import platform
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Literal

from agpo.artifacts import ArtifactRef, Files, Store, digest
from agpo.settings import Settings

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Machine:
    """Where a stage computes, as far as it changes rounding."""

    device: str  # cpu | cuda
    threads: int

    @classmethod
    def resolve(cls, device: Device, threads: int) -> Machine:
        if device == "auto":
            device = "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
        return cls(device, threads)

    def apply(self) -> None:
        import torch

        torch.set_num_threads(self.threads)

    def describe(self) -> dict[str, Any]:
        return {"device": self.device, "processor": platform.machine(), "dtype": "float32", "threads": self.threads}


@dataclass(frozen=True)
class Work:
    """What a stage function gets beside its settings."""

    inputs: Mapping[str, Path]  # fetched artifacts, local folders
    keys: Mapping[str, str]  # of the same artifacts
    out: Path  # empty folder; what is in it when the function returns becomes the artifact
    partial: Files  # durable space for shards of unfinished work, the same at the next attempt
    seed: int
    device: str


@dataclass(frozen=True)
class Stage:
    name: str
    version: int  # raised when the meaning of the stage's code changes
    kind: str  # of the artifact
    function: str  # module:function, taking (settings, work), returning {"rows": int, "metrics": {name: number}}
    computes: bool = True  # uses torch: device, dtype and threads are part of the key

    def key(self, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int, machine: Machine) -> str:
        return digest(
            {
                "stage": self.name,
                "version": self.version,
                "settings": settings,
                "inputs": inputs,
                "seed": seed,
                "machine": machine.describe() if self.computes else None,
            }
        )

    def load(self) -> Any:
        module, name = self.function.split(":")
        return getattr(importlib.import_module(module), name)


PREPARE = Stage("prepare", 2, "problems", "agpo.problems.prepare:prepare", computes=False)
WARM_START = Stage("warm_start", 3, "policy", "agpo.learner.warm_start:warm_start")
TRAIN = Stage("train", 4, "policy", "agpo.session:Session")
INTERPOLATE = Stage("interpolate", 1, "policy", "agpo.learner.interpolate:interpolate")
EVALUATE = Stage("evaluate", 4, "counts", "agpo.evaluation.evaluate:evaluate")
SELECT = Stage("select", 1, "choice", "agpo.evaluation.decision:select", computes=False)
JUDGE = Stage("judge", 1, "decision", "agpo.evaluation.decision:judge", computes=False)
PREPARE_PAIRS = Stage("prepare_pairs", 1, "pairs", "agpo.problems.prepare_pairs:prepare_pairs", computes=False)
SUPERVISE = Stage("supervise", 3, "policy", "agpo.learner.supervise:supervise")
LABEL = Stage("label", 3, "labels", "agpo.relevance.label:label")
LABEL_BY_GOLD = Stage("label_by_gold", 1, "labels", "agpo.relevance.gold:label_by_gold", computes=False)
DISTIL = Stage("distil", 1, "student", "agpo.student.distil:distil")
JUDGE_STUDENT = Stage("judge_student", 1, "student_decision", "agpo.student.judge:judge", computes=False)
STAGES = (
    PREPARE,
    PREPARE_PAIRS,
    WARM_START,
    TRAIN,
    INTERPOLATE,
    EVALUATE,
    SELECT,
    JUDGE,
    SUPERVISE,
    LABEL,
    LABEL_BY_GOLD,
    DISTIL,
    JUDGE_STUDENT,
)


@dataclass(frozen=True)
class Result:
    """An artifact and how it came: made by this call, or found."""

    ref: ArtifactRef
    found: bool
    summary: dict[str, Any] = field(default_factory=dict)  # rows, metrics, cost of the run that made it


@dataclass(frozen=True)
class StageRun:
    """A stage with everything that its key depends on; the inputs need not exist yet."""

    stage: Stage
    settings: Settings
    inputs: Mapping[str, str]  # keys by name
    seed: int
    machine: Machine
    sources: Mapping[str, str] = field(default_factory=dict)  # content digests of what enters from outside
    ignored: frozenset[str] = frozenset()  # settings (dotted) that do not change what is made: paths, costs

    @property
    def matter(self) -> dict[str, Any]:
        """The settings in the key."""
        found = self.settings.model_dump(mode="json")
        for path in self.ignored:
            *parents, name = path.split(".")
            table: Any = reduce(getitem, parents, found)
            table.pop(name, None)  # not every kind of a base or source has it
        return found

    @property
    def key(self) -> str:
        return self.stage.key(self.matter, {**self.inputs, **self.sources}, self.seed, self.machine)

    def find(self, store: Store) -> Result | None:
        ref = store.find(self.stage.kind, self.key)
        return None if ref is None else Result(ref, True, store.manifest(ref).summary)

    def run(self, store: Store, inputs: Mapping[str, ArtifactRef], producer: Mapping[str, str] | None = None) -> Result:
        """Run the stage and publish what it made under its key, or find it there."""
        found = self.find(store)
        if found is not None:
            return found
        function, cost = self.stage.load(), Cost()
        if self.stage.computes:
            self.machine.apply()
        partial = store.partial(self.stage.kind, self.key)
        with _output_folder(partial) as folder:
            work = Work(
                inputs={name: store.fetch(ref) for name, ref in inputs.items()},
                keys={name: ref.key for name, ref in inputs.items()},
                out=folder,
                partial=partial,
                seed=self.seed,
                device=self.machine.device,
            )
            made = function(self.settings, work)
            summary = {**made, "cost": cost.measure()}
            ref = store.publish(
                folder,
                kind=self.stage.kind,
                key=self.key,
                stage=self.stage.name,
                version=self.stage.version,
                settings=self.matter,
                inputs=dict(inputs),
                environment=self.machine.describe(),
                rows=made["rows"],
                summary=summary,
                producer=dict(producer or {}),
            )
        return Result(ref, False, summary)


@contextmanager
def _output_folder(partial: Files) -> Iterator[Path]:
    """An empty folder; in a local store it lies there, so that publishing links its files instead of copying them."""
    if not partial.local:
        with tempfile.TemporaryDirectory(prefix="agpo-stage-") as name:
            yield Path(name)
        return
    partial.remove("out")
    folder = partial.local_path("out")
    folder.mkdir(parents=True)
    yield folder


class Cost:
    """Wall and CPU seconds since it was made (this process and its ended children), and the peak memory so far."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.monotonic(), _cpu_seconds()

    def measure(self) -> dict[str, float]:
        peak = max(_own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        return {
            "seconds": round(time.monotonic() - self.wall, 3),
            "cpu_seconds": round(_cpu_seconds() - self.cpu, 3),
            "peak_memory_mib": round(peak / 1024, 1),
        }


def _own_peak() -> int:
    """Most resident memory of this process so far, in KiB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The kernel's own record: ru_maxrss starts at what the process that started this one held.
    return int(status.partition("VmHWM:")[2].split()[0])


def _cpu_seconds() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)
