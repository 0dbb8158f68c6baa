"""What the guards make of settings in which negative samples ruin a policy, on the base and problems of the demo.

*reuse*: 2 mini-batches × 4 epochs a batch of 16 × 16 rollouts; *small*: 64 rollouts an update (8 × 8) at 7e-4. Both
without a KL term, with NSR and AGPO (R = −0.5). A run has to end with pass@1 not below the base's 95 % interval on
problems like those it trained on, or be stopped for a reason that names figure, bound and step; it never ends in NaN.

Found on one CPU thread, seed 0. Without guards *reuse* ruins both objectives. With the default guards `moved` stops
NSR at step 11 (24.0 %) and AGPO at step 7 (26.1 %), as good as the base (24.9 % [22.9, 27.0]). Healthy updates of demo
and shop moved at most 5.0 % of the tokens. *small* AGPO ends at 51.8 %. *small* NSR depends on rounding: it ended at
27.5 % (base 25.5 % [23.4, 27.7], but hard problems 7.3 % → 2.5 %), and at 0 % before a falling accuracy was bounded.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import polars as pl
import pytest
import torch

from agpo.artifacts import ArtifactRef, Store
from agpo.evaluation.bootstrap import curve_intervals
from agpo.journal import RunStopped, Update
from agpo.objectives import Agpo, Objective
from agpo.objectives.nsr import Nsr
from agpo.profile import load_settings
from agpo.recipe import Recipe
from agpo.session import Session
from agpo.settings import GuardSettings, LossSettings, NightlyRun

SAMPLES, KS = 128, (1, 64)
DEMO = load_settings(NightlyRun, "demo", [f"evaluate.samples={SAMPLES}"], environ={})
SETTINGS = {
    "reuse": {"steps": 60, "learner.mini_batches": 2, "learner.epochs": 4},
    "small": {"steps": 600, "learner.rate": 7e-4, "rollout.problems": 8, "rollout.samples": 8},
}
OBJECTIVES: dict[str, Objective] = {"NSR": Nsr(), "AGPO": Agpo(delta=1.0, negative=-0.5)}
GUARDS = {
    "none": GuardSettings.model_validate({name: 0 for name in GuardSettings.model_fields if name != "rows"}),
    "default": GuardSettings(),
}


class Start(NamedTuple):
    store: Store
    problems: ArtifactRef
    base: ArtifactRef
    curve: pl.DataFrame  # pass@k of the base with its intervals, by set


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    torch.set_num_threads(1)
    store, recipe = Store(tmp_path_factory.mktemp("store")), Recipe(DEMO)
    problems = recipe.prepare().run(store, {}).ref
    base = recipe.warm_start(problems.key).run(store, {"problems": problems}).ref
    print(f"\n{'':28} {'steps':>5} {'refused':>7} {'entropy':>7}  pass@1 and pass@64 [95 % interval], by set")
    curve = _evaluate(store, problems, base)
    _print_row("base", [], curve)
    return Start(store, problems, base, curve)


@pytest.mark.bench
@pytest.mark.parametrize(
    ("setting", "objective", "guards"),
    [
        ("reuse", "NSR", "none"),
        ("reuse", "NSR", "default"),
        ("reuse", "AGPO", "none"),
        ("reuse", "AGPO", "default"),
        ("small", "NSR", "none"),
        ("small", "NSR", "default"),
        ("small", "AGPO", "none"),
        ("small", "AGPO", "default"),
    ],
)
def test_a_run_ends_healthy_or_says_why_it_stops(start: Start, setting: str, objective: str, guards: str) -> None:
    run = _configure(setting, OBJECTIVES[objective], GUARDS[guards])
    with Session(run, start.store, start.problems, start.base) as session:
        stopped = _train(session)
        updates = list(session.journal.updates())
        session.end_at(len(updates))
        policy = session.publish().ref
    curve = _evaluate(start.store, start.problems, policy)
    _print_row(f"{setting} {objective}, guards {guards}", updates, curve)
    if stopped is not None:
        print(f"    {stopped.splitlines()[-1].strip()}")

    assert all(math.isfinite(value) for update in updates for value in update.metrics.values())
    healthy = _pass_at_1(curve)["pass_at_k"] >= _pass_at_1(start.curve)["lower"]
    if guards == "default":
        assert healthy or stopped is not None
    if stopped is not None:
        assert f"step {len(updates) - 1}: " in stopped or f"after {len(updates)} steps: " in stopped
        assert "learner.guards." in stopped


def _configure(setting: str, objective: Objective, guards: GuardSettings) -> NightlyRun:
    sets = [f"{name}={value}" for name, value in SETTINGS[setting].items()]
    run = load_settings(NightlyRun, "demo", [*sets, "checkpoint_every=600"], environ={})
    learner = run.learner.model_copy(update={"guards": guards})
    loss = LossSettings(mask_truncated=run.loss.mask_truncated)
    return run.model_copy(update={"objective": objective, "learner": learner, "loss": loss})


def _train(session: Session) -> str | None:
    """Take all steps; why the run stopped before."""
    try:
        for step in session.remaining():
            session.generate(step)
            session.verify(step)
            session.update(step)
    except RunStopped as stopped:
        return str(stopped)
    return None


def _evaluate(store: Store, problems: ArtifactRef, policy: ArtifactRef) -> pl.DataFrame:
    stage_run = Recipe(DEMO).evaluate(policy.key, problems.key, "selection")
    counts = stage_run.run(store, {"policy": policy, "problems": problems}).ref
    return curve_intervals(pl.read_parquet(store.fetch(counts) / "counts.parquet"), KS)


def _pass_at_1(curve: pl.DataFrame) -> dict[str, float]:
    return curve.filter(pl.col("set") == "in_distribution", pl.col("k") == 1).row(0, named=True)


def _print_row(name: str, updates: list[Update], curve: pl.DataFrame) -> None:
    refused = sum(update.refused is not None for update in updates)
    entropy = max((update.metrics.get("policy/entropy", 0.0) for update in updates), default=0.0)
    figures = "   ".join(
        f"{row['pass_at_k']:.1%} [{row['lower']:.1%}, {row['upper']:.1%}]" for row in curve.iter_rows(named=True)
    )
    print(f"{name:28} {len(updates):5} {refused:7} {entropy:7.2f}  {figures}", flush=True)
