"""A whole night as plain functions: the same stages without Prefect and MLflow, to measure what these cost.

python -m tests.benchmarks.plain_night demo STORE
"""

from __future__ import annotations

import resource
import sys

from agpo.artifacts import ArtifactRef, Store
from agpo.evaluation import Choice
from agpo.profile import load_settings
from agpo.recipe import Recipe
from agpo.session import Session
from agpo.settings import NightlyRun


def run_night(run: NightlyRun, store: Store) -> None:
    recipe = Recipe(run)
    problems = recipe.prepare().run(store, {}).ref
    base = recipe.warm_start(problems.key).run(store, {"problems": problems}).ref
    policies = _train_and_choose(recipe, store, problems, base)
    counts = {role: _evaluate(recipe, store, policy, problems, "confirmation") for role, policy in policies.items()}
    recipe.judge({role: ref.key for role, ref in counts.items()}).run(store, counts)
    for objective in run.compare:
        other = recipe.with_objective(objective)
        for role, policy in _train_and_choose(other, store, problems, base).items():
            if role != "base":
                _evaluate(other, store, policy, problems, "confirmation")


def _train_and_choose(recipe: Recipe, store: Store, problems: ArtifactRef, base: ArtifactRef) -> dict[str, ArtifactRef]:
    with Session(recipe.run, store, problems, base) as session:
        for step in session.remaining():
            session.generate(step)
            session.verify(step)
            session.update(step)
        trained = session.publish().ref
    policies = {1.0: trained}
    for weight in recipe.night.interpolate.weights:
        if weight != 1:
            stage_run = recipe.interpolate(base.key, trained.key, weight)
            policies[weight] = stage_run.run(store, {"base": base, "trained": trained}).ref
    counts = {"base": _evaluate(recipe, store, base, problems, "selection")}
    for weight in recipe.night.interpolate.weights:
        counts[f"weight_{weight}"] = _evaluate(recipe, store, policies[weight], problems, "selection")
    choice = recipe.select({name: ref.key for name, ref in counts.items()}).run(store, counts).ref
    chosen = Choice.model_validate_json((store.fetch(choice) / "choice.json").read_text())
    return {"base": base, "trained": trained, "candidate": policies[chosen.weight]}


def _evaluate(recipe: Recipe, store: Store, policy: ArtifactRef, problems: ArtifactRef, split: str) -> ArtifactRef:
    stage_run = recipe.evaluate(policy.key, problems.key, split)  # type: ignore[arg-type]
    return stage_run.run(store, {"policy": policy, "problems": problems}).ref


if __name__ == "__main__":
    run_night(load_settings(NightlyRun, sys.argv[1]), Store(sys.argv[2]))
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{sum(one.ru_utime + one.ru_stime for one in usage):.1f} CPU-seconds")
