"""What a run would do: its settings, and for each stage whether it would run or be found. Needs no server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Group
from rich.pretty import Pretty
from rich.table import Table

from agpo.artifacts import Files, Store
from agpo.evaluation.selection import Choice
from agpo.recipe import Recipe
from agpo.settings import NightlyRun, TrainRun
from agpo.stages import TRAIN, StageRun
from tasks.location import STORE_VARIABLE, store_address


class Planned(NamedTuple):
    stage: str
    state: str
    key: str


def plan_table(flow: str, settings: TrainRun, *, store: str | None = None) -> Group:
    """The settings of a flow, then its stages in order."""
    if store:
        os.environ[STORE_VARIABLE] = store
    table = Table("Stage", "State", "Key", title=f"{flow} in {store_address()}", title_justify="left", box=None)
    for planned in plan_run(flow, settings, Store(store_address())):
        colour = "green" if planned.state == "found" else "yellow"
        table.add_row(planned.stage, f"[{colour}]{planned.state}[/]", planned.key[:12])
    return Group(Pretty(settings.model_dump(mode="json"), expand_all=True), "", table)


def plan_run(flow: str, run: TrainRun, store: Store) -> Iterator[Planned]:
    """Each stage of a flow with its state: found, to run, or for training how far the journal reaches."""
    recipe = Recipe(run)
    prepare = recipe.prepare()
    yield _look_up("prepare", prepare, store)
    warm_start = recipe.warm_start(prepare.key)
    yield _look_up("warm_start", warm_start, store)
    yield from _plan_policy(flow, recipe, prepare.key, warm_start.key, store)
    if isinstance(run, NightlyRun) and flow == "nightly":
        for objective in run.compare:
            yield from _plan_policy(flow, recipe.with_objective(objective), prepare.key, warm_start.key, store)


def _plan_policy(flow: str, recipe: Recipe, problems: str, base: str, store: Store) -> Iterator[Planned]:
    label = recipe.run.objective.kind
    trained = recipe.trained_key(problems, base)
    yield Planned(f"train {label}", _training_state(recipe, problems, base, trained, store), trained)
    if flow == "train":
        return
    policies = {}
    for weight in recipe.night.interpolate.weights:
        between = recipe.interpolate(base, trained, weight)
        policies[weight] = trained if weight == 1 else between.key
        if weight != 1:
            yield _look_up(f"interpolate {label} {weight}", between, store)
    counts = {"base": recipe.evaluate(base, problems, "selection")}
    counts |= {f"weight_{weight}": recipe.evaluate(key, problems, "selection") for weight, key in policies.items()}
    for name, stage_run in counts.items():
        yield _look_up(f"evaluate selection {name}", stage_run, store)
    select = recipe.select({name: stage_run.key for name, stage_run in counts.items()})
    yield _look_up(f"select {label}", select, store)
    chosen = {"base": base, "trained": trained}
    found = select.find(store)
    if found is not None:
        choice = Choice.model_validate_json((store.fetch(found.ref) / "choice.json").read_text())
        chosen["candidate"] = policies[choice.weight]
    for role, key in chosen.items():
        yield _look_up(f"evaluate confirmation {role}", recipe.evaluate(key, problems, "confirmation"), store)
    if found is None:
        yield Planned("evaluate confirmation candidate", "after selection", "")


def _look_up(name: str, stage_run: StageRun, store: Store) -> Planned:
    state = "found" if store.find(stage_run.stage.kind, stage_run.key) else "to run"
    return Planned(name, state, stage_run.key)


def _training_state(recipe: Recipe, problems: str, base: str, trained: str, store: Store) -> str:
    if store.find(TRAIN.kind, trained):
        return "found"
    journal = store.files.child(f"journal/{recipe.train_key(problems, base)}")
    done = _finished_steps(journal)
    return f"{done} of {recipe.run.steps} steps journalled" if done else f"to run, {recipe.run.steps} steps"


def _finished_steps(journal: Files) -> int:
    return sum(name.endswith("/update.json") for name in journal.names("steps"))
