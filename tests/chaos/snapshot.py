"""What a run leaves behind, without times: two runs of the same settings must give equal snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import polars as pl
from mlflow import MlflowClient
from mlflow.entities import Run

from agpo.artifacts import Files, Manifest
from agpo.journal import Journal
from tasks.tracking import connect

_ADDRESSES = ("checkpoint.uri", "evidence.decision")  # below the home folder
_TIMES = ("time/", "cost/", "mean_of_last_25/verify/seconds", "verify/seconds")


def is_time(metric: str) -> bool:
    return metric.startswith(_TIMES)


def read_files(files: Files, below: str = "") -> dict[str, str]:
    """Digest of every file by name."""
    return {name: hashlib.sha256(files.read(name)).hexdigest() for name in files.names(below)}


def read_steps(files: Files) -> list[dict[str, Any]]:
    """A journal's steps: rollouts, verdicts and outcome of each."""
    journal = Journal(files)
    steps = []
    for update in journal.updates():
        verdicts = journal.read_verdicts(update.step)
        assert verdicts is not None
        steps.append(
            {
                "rollouts": journal.read_rollouts(update.step).to_dicts(),
                "verdicts": verdicts.drop("seconds").to_dicts(),
                "policy": (update.policy_before, update.policy, update.refused),
                "metrics": {name: value for name, value in update.metrics.items() if not is_time(name)},
            }
        )
    return steps


def read_run(store: Files, key: str) -> dict[str, Any]:
    """A training run's journal, with the bytes of its checkpoints (weights and optimiser)."""
    files = store.child(f"journal/{key}")
    return {
        "run": Journal(files).read_run(),
        "steps": read_steps(files),
        "checkpoints": read_files(files, "checkpoints"),
    }


def count_rows(steps: list[dict[str, Any]]) -> pl.DataFrame:
    """Rollouts and correct ones a step: a snapshot of nothing but failures would prove little."""
    return pl.DataFrame(
        [
            {
                "rollouts": len(step["rollouts"]),
                "correct": sum(row["verdict"] == "correct" for row in step["verdicts"]),
            }
            for step in steps
        ]
    )


def read_runs(uri: str, experiment: str) -> dict[str, Run]:
    """The newest MLflow run of each name."""
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])
    return {run.info.run_name: run for run in runs}


def read_tracking(uri: str) -> dict[str, dict[str, Any]]:
    """Every MLflow run by the key of what it tracks: status, curves and figures, parameters, inputs and files."""
    client = connect(uri)
    found = {}
    for experiment in client.search_experiments(filter_string="name LIKE 'agpo/%'"):
        for run in client.search_runs([experiment.experiment_id]):
            assert run.inputs is not None
            names = sorted(name for name in run.data.metrics if not is_time(name))
            found[f"{experiment.name} {run.data.tags['agpo.run_key']}"] = {
                "name": run.info.run_name,
                "status": run.info.status,
                "metrics": {name: read_curve(client, run.info.run_id, name) for name in names},
                "params": run.data.params,
                "inputs": sorted((entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs),
                "outputs": sorted(tag for tag in run.data.tags if tag.startswith("agpo.output.")),
                "files": sorted(list_files(client, run.info.run_id)),
            }
    return found


def read_curve(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, str]]:
    """Step and value (as text, because NaN is not equal to itself) of every point that was ever logged."""
    return sorted((point.step, repr(point.value)) for point in client.get_metric_history(run_id, name))


def list_files(client: MlflowClient, run_id: str, below: str | None = None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, below):
        if entry.is_dir:
            yield from list_files(client, run_id, entry.path)
        else:
            yield entry.path


def read_registry(uri: str) -> dict[str, Any]:
    """Registered models: aliases, and each version's policy, role and evidence."""
    client = connect(uri)
    return {
        model.name: {
            "aliases": model.aliases,
            "versions": {
                version.version: {name: value for name, value in version.tags.items() if name not in _ADDRESSES}
                for version in client.search_model_versions(f"name = '{model.name}'")
            },
        }
        for model in client.search_registered_models()
    }


def read_artifacts(store: Files) -> dict[str, Any]:
    """Digest and rows of every published artifact by kind and key."""
    kinds = {*store.folders()} - {"journal", "partial"}
    names = [name for kind in sorted(kinds) for name in store.names(kind) if name.endswith("/manifest.json")]
    manifests = {name.removesuffix("/manifest.json"): Manifest.model_validate_json(store.read(name)) for name in names}
    return {name: (manifest.sha256, manifest.rows) for name, manifest in manifests.items()}
