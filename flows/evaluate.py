"""Choose a candidate between base and trained policy, and count what it solves beside them."""

from prefect import flow

from agpo.artifacts import ArtifactRef
from agpo.evaluation import Choice
from agpo.settings import NightlyRun
from flows.train import train_policy
from tasks.evaluate import evaluate as evaluate_policy
from tasks.interpolate import interpolate, select
from tasks.pipeline import Pipeline, open_pipeline
from tasks.prepare import prepare
from tasks.report import Report
from tasks.summary import summarize
from tasks.warm_start import warm_start


@flow(name="evaluate", persist_result=False)
def evaluate(run: NightlyRun = NightlyRun()) -> Report:
    """Evaluate base, trained policy and candidate; what is missing is trained first.

    Args:
        run: The settings of the night that is evaluated.
    """
    with open_pipeline("evaluate", run.check_start()) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        label = run.objective.kind
        trained = train_policy(pipeline, problems, base, label)
        candidate = choose_candidate(pipeline, problems, base, trained, label)
        confirm(pipeline, problems, {"base": base, "trained": trained, "candidate": candidate}, label)
        report: Report = summarize(pipeline)
        return report


def choose_candidate(
    pipeline: Pipeline, problems: ArtifactRef, base: ArtifactRef, trained: ArtifactRef, label: str
) -> ArtifactRef:
    """The largest step away from the base that keeps the boundary on the selection split."""
    weights = pipeline.recipe.night.interpolate.weights
    if weights == (1.0,):
        return trained
    policies = {
        weight: trained if weight == 1 else interpolate(pipeline, base, trained, weight, label) for weight in weights
    }
    counts = {"base": evaluate_policy(pipeline, base, problems, "selection", "base")}
    for weight, policy in policies.items():
        counts[f"weight_{weight}"] = evaluate_policy(pipeline, policy, problems, "selection", f"{label} {weight}")
    choice = select(pipeline, counts, label)
    chosen = Choice.model_validate_json((pipeline.store.fetch(choice) / "choice.json").read_text())
    return policies[chosen.weight]


def confirm(
    pipeline: Pipeline, problems: ArtifactRef, policies: dict[str, ArtifactRef], label: str
) -> dict[str, ArtifactRef]:
    """Counts of the confirmation split, which nothing was chosen on. The same policy under two names runs once."""
    return {
        role: evaluate_policy(pipeline, policy, problems, "confirmation", role if role == "base" else f"{label} {role}")
        for role, policy in policies.items()
    }
