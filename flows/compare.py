"""Compare teachers: the same pairs labelled by each, a student from each one's labels."""

from prefect import flow

from agpo.artifacts import ArtifactRef
from agpo.objectives import Grpo, Objective
from agpo.settings import NightlyRun
from flows.evaluate import choose_candidate
from flows.naming import name_objectives
from flows.train import train_policy
from tasks.compare import Comparison, compare_students
from tasks.distil import distil
from tasks.label import label, label_by_gold, prepare_pairs, supervise
from tasks.pipeline import Pipeline, open_pipeline
from tasks.prepare import prepare
from tasks.warm_start import warm_start

_RIVALS: tuple[Objective, ...] = (Grpo(),)  # where the settings name none


@flow(name="compare", persist_result=False)
def compare(run: NightlyRun = NightlyRun()) -> Comparison:
    """Measure on judged pairs what the labels of base, supervised base, each objective's policy and gold are worth.

    The students learn from the labels alone: judged pairs beside them would make up for what the labels lack.

    Args:
        run: The settings of the night whose teachers are compared.
    """
    with open_pipeline("compare", run.check_start().on_labels_alone()) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        pairs = prepare_pairs(pipeline, problems)
        gold = label_by_gold(pipeline, pairs)
        labels = {}
        for name, teacher in train_teachers(pipeline, problems, base).items():
            label(pipeline, teacher, problems, "confirmation", name)
            labels[name] = label(pipeline, teacher, pairs, "unlabelled", name)
        if gold is not None:
            labels["gold"] = gold
        students = {name: distil(pipeline, problems, found, base, name) for name, found in labels.items()}
        comparison: Comparison = compare_students(pipeline, students)
        return comparison


def train_teachers(pipeline: Pipeline, problems: ArtifactRef, base: ArtifactRef) -> dict[str, ArtifactRef]:
    """The base, the base under supervision, and each objective's candidate, chosen as a night chooses it."""
    teachers = {"base": base, "supervised": supervise(pipeline, base, problems)}
    run = pipeline.recipe.night
    for name, objective in name_objectives(run, run.compare or _RIVALS).items():
        other = pipeline.with_recipe(pipeline.recipe.with_objective(objective))
        trained = train_policy(other, problems, base, name)
        teachers[name] = choose_candidate(other, problems, base, trained, name)
    return teachers
