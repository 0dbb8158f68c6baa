from __future__ import annotations

from pathlib import Path

from agpo.rollout.advice import advise_rollouts
from agpo.settings import NightlyRun, RolloutSettings, TrainRun
from agpo.settings.vllm import VllmSettings
from tests.agpo.rollout.test_memory import SMOLLM, folder_base

GIB = 1 << 30


def advise(run: TrainRun, available: int = 16 * GIB) -> list[str]:
    return list(advise_rollouts(run, available))


def run_with(folder: Path, **rollout: int) -> TrainRun:
    return TrainRun.model_construct(
        **{**dict(TrainRun()), "base": folder_base(folder, SMOLLM), "rollout": RolloutSettings(**rollout)}
    )


def test_the_defaults_need_no_advice() -> None:
    assert advise(NightlyRun()) == []


def test_a_chunk_that_does_not_fit_is_named_with_one_that_does(tmp_path: Path) -> None:
    large = run_with(tmp_path, problems=256, samples=16, chunk=4096, tokens=1024)
    (found,) = advise(large)
    assert found.startswith("rollout.chunk = 4096 may need ")
    assert "of the 8.0 GiB" in found
    fitting = int(found.split("sampling; ")[1].split()[0])
    smaller = run_with(tmp_path, problems=256, samples=16, chunk=fitting, tokens=1024)
    assert not any("rollout.chunk" in sentence for sentence in advise(smaller))
    assert any("rollout.chunk" in sentence for sentence in advise(smaller, 8 * GIB))


def test_a_chunk_beyond_what_a_step_has_is_reckoned_at_the_step(tmp_path: Path) -> None:
    run = run_with(tmp_path, problems=2, samples=16, chunk=100_000, tokens=64)
    assert not any("rollout.chunk" in sentence for sentence in advise(run))


def test_memory_for_not_even_a_row_is_said(tmp_path: Path) -> None:
    assert "not even one row fits" in advise(run_with(tmp_path), GIB // 2)[0]


def test_a_chunk_of_a_few_rows_is_too_small(tmp_path: Path) -> None:
    found = advise(run_with(tmp_path, problems=16, samples=16, chunk=8))[0]
    assert found.startswith("rollout.chunk = 8 reads all weights for a few rows; 256 fits")
    assert not any(
        "rollout.chunk" in sentence for sentence in advise(run_with(tmp_path, problems=1, samples=8, chunk=8))
    )


def test_another_engine_gets_no_advice(tmp_path: Path) -> None:
    run = run_with(tmp_path, chunk=100_000)
    engine = run.rollout.model_copy(update={"engine": VllmSettings()})
    assert advise(run.model_copy(update={"rollout": engine}), GIB // 2) == []
