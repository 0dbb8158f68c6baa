"""What a run would do: its settings, and for each stage whether it would run or be found. Needs no server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import psutil
from rich.console import Group
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from agpo.artifacts import Store
from agpo.evaluation.selection import Choice
from agpo.recipe import Recipe
from agpo.rollout.advice import advise_rollouts
from agpo.settings import NightlyRun, TrainRun
from agpo.stages import TRAIN, StageRun
from flows.naming import name_objectives
from flows.sources import check_sources
from tasks.location import STORE_VARIABLE, open_store, store_address

_AFTER_GATE = "to run or found, after the gate"


class Planned(NamedTuple):
    stage: str
    state: str
    key: str


def plan_table(flow: str, settings: TrainRun, *, store: str | None = None) -> Group:
    """The settings of a flow, then its stages in order."""
    check_sources(settings)
    if store:
        os.environ[STORE_VARIABLE] = store
    table = Table("Stage", "State", "Key", box=None, pad_edge=False)
    for planned in plan_run(flow, settings, open_store()):
        colour = "green" if planned.state.startswith("found") else "yellow"
        table.add_row(planned.stage, f"[{colour}]{planned.state}[/]", planned.key[:12])
    advice = [Text(f"advice: {sentence}", style="yellow") for sentence in _advise(settings)]
    title = Text(f"{flow} in {store_address()}\n", no_wrap=True, overflow="ignore")
    return Group(Pretty(settings.model_dump(mode="json"), expand_all=True), "", title, table, *advice)


def _advise(run: TrainRun) -> Iterator[str]:
    if Recipe(run).machine.device == "cpu":
        yield from advise_rollouts(run, psutil.virtual_memory().available)


def plan_run(flow: str, run: TrainRun, store: Store) -> Iterator[Planned]:
    """Each stage of a flow, named as in the report of its end, with its state: found, to run, or how far it is."""
    recipe = Recipe(run)
    prepare = recipe.prepare()
    yield _look_up("prepare", prepare, store)
    base = recipe.warm_start(prepare.key)
    yield _look_up("warm_start", base, store)
    if not isinstance(run, NightlyRun):
        yield _plan_training(recipe, run.objective.kind, prepare.key, base.key, store)
        return
    if flow in ("label", "distil"):
        yield from _plan_relevance(recipe, prepare.key, base.key, store, distilled=flow == "distil")
        return
    if run.start == "champion":
        yield Planned(f"train {run.objective.kind}", "to run or found, from the champion", "")
        return
    first, *others = name_objectives(run).items()
    yield from _plan_policy(recipe, first[0], prepare.key, base.key, store, judged=flow != "evaluate")
    for label, objective in others if flow == "nightly" else ():
        other = recipe.with_objective(objective)
        for planned in _plan_policy(other, label, prepare.key, base.key, store, judged=False):
            if not planned.stage.endswith(" base"):  # the base is evaluated once
                yield planned
    if flow == "nightly" and run.label is not None:
        yield from _plan_relevance(recipe, prepare.key, base.key, store, distilled=run.distil is not None)


def _plan_policy(
    recipe: Recipe, label: str, problems: str, base: str, store: Store, *, judged: bool
) -> Iterator[Planned]:
    """Train, choose the candidate, count what it solves, and judge it."""
    yield _plan_training(recipe, label, problems, base, store)
    trained, candidate = recipe.trained_key(problems, base), None
    weights = recipe.night.interpolate.weights
    if weights == (1.0,):
        candidate = trained
    else:
        policies = {weight: recipe.interpolate(base, trained, weight) for weight in weights if weight != 1}
        for weight, stage_run in policies.items():
            yield _look_up(f"interpolate {label} {weight}", stage_run, store)
        keys = {weight: policies[weight].key if weight in policies else trained for weight in weights}
        counts = {"base": recipe.evaluate(base, problems, "selection")}
        yield _look_up("evaluate selection base", counts["base"], store)
        for weight, key in keys.items():
            counts[f"weight_{weight}"] = recipe.evaluate(key, problems, "selection")
            yield _look_up(f"evaluate selection {label} {weight}", counts[f"weight_{weight}"], store)
        select = recipe.select({name: stage_run.key for name, stage_run in counts.items()})
        yield _look_up(f"select {label}", select, store)
        found = select.find(store)
        if found is not None:
            choice = Choice.model_validate_json((store.fetch(found.ref) / "choice.json").read_text())
            candidate = keys[choice.weight]
    confirmed = {}
    for role, policy in {"base": base, "trained": trained, "candidate": candidate}.items():
        name = f"evaluate confirmation {role if role == 'base' else f'{label} {role}'}"
        if policy is None:
            yield Planned(name, "to run, after selection", "")
        else:
            confirmed[role] = recipe.evaluate(policy, problems, "confirmation")
            yield _look_up(name, confirmed[role], store)
    if judged:
        yield _plan_judgement(recipe, {role: stage_run.key for role, stage_run in confirmed.items()}, store)


def _plan_relevance(recipe: Recipe, problems: str, base: str, store: Store, *, distilled: bool) -> Iterator[Planned]:
    """Labels by base, champion and supervised base, and the student. Who the champion will be, the gate decides."""
    yield _look_up("label confirmation base", recipe.label(base, problems, "confirmation"), store)
    yield Planned("label confirmation teacher", _AFTER_GATE, "")
    if recipe.night.supervise is not None:
        supervise = recipe.supervise(base, problems)
        yield _look_up("supervise", supervise, store)
        labels = recipe.label(supervise.key, problems, "confirmation")
        yield _look_up("label confirmation supervised", labels, store)
    pairs = recipe.prepare_pairs()
    if pairs is not None:
        yield _look_up("prepare_pairs", pairs, store)
    yield Planned("label unlabelled teacher", _AFTER_GATE, "")
    for stage in ("distil student", "judge student") if distilled else ():
        yield Planned(stage, _AFTER_GATE, "")


def _plan_judgement(recipe: Recipe, counts: dict[str, str], store: Store) -> Planned:
    """The registry, which is not asked here, says whether there is a champion besides the base."""
    if "candidate" not in counts:
        return Planned("judge", "to run, after selection", "")
    judge = recipe.judge(counts)
    state = "found" if judge.find(store) else "to run"
    return Planned("judge", f"{state}, with the base as champion", judge.key)


def _plan_training(recipe: Recipe, label: str, problems: str, base: str, store: Store) -> Planned:
    key, steps = recipe.trained_key(problems, base), recipe.run.steps
    if store.find(TRAIN.kind, key):
        return Planned(f"train {label}", "found", key)
    journal = store.files.names(f"journal/{recipe.train_key(problems, base)}/steps")
    done = min(steps, sum(name.endswith("/update.json") for name in journal))
    return Planned(f"train {label}", f"to run, {f'{done} of ' if done else ''}{steps} steps", key)


def _look_up(name: str, stage_run: StageRun, store: Store) -> Planned:
    state = "found" if store.find(stage_run.stage.kind, stage_run.key) else "to run"
    return Planned(name, state, stage_run.key)
