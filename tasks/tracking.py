"""MLflow runs by explicit id: opened once per key, continued by later attempts, logged to without repetition.

Nothing here uses MLflow's active run, which is a property of a thread. Names of metrics may hold letters, digits and
``_ - . : /`` and blanks, so it is ``pass_at_16``, never ``pass@16``; MLflow refuses others with an error that names it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from PIL import Image
from prefect.exceptions import TerminationSignal
from prefect.runtime import deployment, flow_run
from pydantic import BaseModel, ConfigDict

from agpo.artifacts import ArtifactRef, Manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UI_VARIABLE = "AGPO_MLFLOW_UI"  # where a browser reaches MLflow, when that is not the tracking URI
_BATCH = 1000  # values a log_batch takes
_PARAMS = 100  # parameters a log_batch takes
_TEXT = 5000  # characters kept of a tag


class RunRef(BaseModel):
    """An MLflow run; small enough to be a Prefect parameter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: str
    experiment_id: str
    run_id: str

    @property
    def url(self) -> str:
        """The run's page: below ``AGPO_MLFLOW_UI``, else below an http tracking URI; else a pointer for a reader."""
        base = os.environ.get(UI_VARIABLE, self.tracking_uri).rstrip("/")
        page = f"experiments/{self.experiment_id}/runs/{self.run_id}"
        # Without the workflow type MLflow shows every run as an evaluation of a chat application.
        return f"{base}/#/{page}?workflowType=machine_learning" if base.startswith("http") else f"{base}#{page}"


class StepRecord(TypedDict):
    """The metrics of one step. ``time_ms`` (Unix, milliseconds) is the step's own, the same each time it is logged."""

    step: int
    time_ms: int
    metrics: Mapping[str, float]


def connect(tracking_uri: str) -> MlflowClient:
    """A client that ignores MLflow's process-wide tracking URI; cheap, because MLflow keeps the store behind it."""
    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def open_run(
    experiment: str,
    name: str,
    run_key: str,
    *,
    tracking_uri: str,
    parent: RunRef | None = None,
    params: Mapping[str, Any] | None = None,
) -> RunRef:
    """The run with this key: made by the first attempt, set to RUNNING again by every later one.

    Parameters are flattened to dotted names and logged once. One that has another value in a later attempt (a raised
    number of steps) cannot be changed in MLflow: its latest value is the tag ``agpo.param.<name>``.
    """
    client = connect(tracking_uri)
    experiment_id = _open_experiment(client, experiment, tracking_uri)
    found = client.search_runs([experiment_id], f"tags.`agpo.run_key` = '{run_key}'", max_results=1)
    if found:
        run = found[0]
        tags = {"agpo.attempts": str(int(run.data.tags["agpo.attempts"]) + 1)}
        client.update_run(run.info.run_id, status="RUNNING")
        if "agpo.error" in run.data.tags:
            client.delete_tag(run.info.run_id, "agpo.error")
    else:
        tags = {"agpo.run_key": run_key, "agpo.attempts": "1"}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.run_id
        run = client.create_run(experiment_id, tags=tags, run_name=name)
    run_id = run.info.run_id
    _log_params(client, run, _flatten(params or {}))
    tags |= _flow_run_tags(attempt=tags["agpo.attempts"], note=run.data.tags.get("mlflow.note.content", ""))
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    return RunRef(tracking_uri=tracking_uri, experiment_id=experiment_id, run_id=run_id)


def close_run(ref: RunRef, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    connect(ref.tracking_uri).set_terminated(ref.run_id, status)


@contextmanager
def run_context(ref: RunRef) -> Iterator[RunRef]:
    """Close the run as FINISHED, FAILED (with the tag ``agpo.error``) or, when interrupted, KILLED.

    A flow run that suspends leaves the run RUNNING: the attempt after it goes on.
    """
    try:
        yield ref
    except (KeyboardInterrupt, TerminationSignal, SystemExit):
        close_run(ref, "KILLED")
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:_TEXT]
        connect(ref.tracking_uri).set_tag(ref.run_id, "agpo.error", text)
        close_run(ref, "FAILED")
        raise
    close_run(ref, "FINISHED")


def log_steps(ref: RunRef, records: Iterable[StepRecord]) -> None:
    """Log records in ascending order of steps. Logging a record again adds no point.

    A value that is not finite becomes NaN, which MLflow keeps and draws as a gap (it would store infinity as 1.8e308).
    """
    logged = list(records)
    _log_metrics(
        ref,
        [
            _metric(name, value, record["time_ms"], record["step"])
            for record in logged
            for name, value in record["metrics"].items()
        ],
    )
    if logged:
        # Last, so that a kill between two batches makes steps be logged again, never left out.
        connect(ref.tracking_uri).set_tag(ref.run_id, "agpo.logged_step", str(logged[-1]["step"]))


def last_logged_step(ref: RunRef) -> int:
    """The step up to which all records are logged; −1 where there is none."""
    return int(connect(ref.tracking_uri).get_run(ref.run_id).data.tags.get("agpo.logged_step", -1))


def log_summary(ref: RunRef, metrics: Mapping[str, float]) -> None:
    """Log figures of the whole run. One that is there already with the same value gets no second point.

    A first value bears the time of the run's start: MLflow stores points before it notes the latest ones, and a point
    that is logged again after a kill between the two is then the same point.
    """
    run = connect(ref.tracking_uri).get_run(ref.run_id)
    known, now = run.data.metrics, time.time_ns() // 1_000_000
    points = [_metric(name, value, now if name in known else run.info.start_time, 0) for name, value in metrics.items()]
    # By their text, because NaN is not equal to itself.
    _log_metrics(ref, [point for point in points if repr(known.get(point.key)) != repr(point.value)])


def log_dataset(ref: RunRef, artifact: ArtifactRef, name: str, context: str) -> None:
    """Show an artifact as an input of the run. ``context`` is its role, such as training or evaluation."""
    scheme = urlsplit(artifact.uri).scheme or "local"
    dataset = Dataset(
        name=name,
        digest=artifact.sha256[:36],  # the longest digest that MLflow takes
        source_type=scheme,
        source=json.dumps({"uri": artifact.uri}),
        profile=json.dumps({"num_rows": artifact.rows, "bytes": artifact.bytes, "kind": artifact.kind}),
    )
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", context), InputTag("agpo.key", artifact.key)])]
    connect(ref.tracking_uri).log_inputs(ref.run_id, inputs)


def log_output(
    ref: RunRef, artifact: ArtifactRef, name: str, manifest: Manifest, preview: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Show an artifact as an output of the run: reference, manifest and a few of its rows as a table."""
    log_json(ref, artifact.model_dump(), f"outputs/{name}/reference")
    log_json(ref, manifest.model_dump(), f"outputs/{name}/manifest")
    if preview:
        connect(ref.tracking_uri).log_text(ref.run_id, _csv(preview), f"outputs/{name}/preview.csv")
    connect(ref.tracking_uri).set_tag(ref.run_id, f"agpo.output.{name}", artifact.uri)


def log_figure(ref: RunRef, figure: Figure, name: str) -> None:
    """Store a figure as ``figures/<name>.png``."""
    connect(ref.tracking_uri).log_figure(ref.run_id, figure, f"figures/{name}.png", save_kwargs={"dpi": 150})


def log_picture(ref: RunRef, file: Path, name: str) -> None:
    """Store a PNG file as ``figures/<name>.png``."""
    with Image.open(file) as image:
        connect(ref.tracking_uri).log_image(ref.run_id, image, f"figures/{name}.png")


def log_pictures(ref: RunRef, folder: Path) -> None:
    """Store every PNG of a folder as ``figures/<its name>``."""
    for file in sorted(folder.glob("*.png")):
        log_picture(ref, file, file.stem)


def log_json(ref: RunRef, content: Any, name: str) -> None:
    """Store a JSON-able value as ``<name>.json``."""
    connect(ref.tracking_uri).log_text(ref.run_id, json.dumps(content, indent=1, ensure_ascii=False), f"{name}.json")


def log_text(ref: RunRef, text: str, name: str) -> None:
    """Store a text under its file name, such as ``report.md``."""
    connect(ref.tracking_uri).log_text(ref.run_id, text, name)


def _open_experiment(client: MlflowClient, name: str, tracking_uri: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    # The tag makes the page open on charts of runs, not on traces.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=_artifact_location(tracking_uri), tags=tags))


def _artifact_location(tracking_uri: str) -> str | None:
    """Beside an SQLite file, where MLflow's default would be the working directory; None: the server's own."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return (Path(tracking_uri.removeprefix("sqlite:///")).resolve().parent / "mlflow-artifacts").as_uri()


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, str]) -> None:
    known = run.data.params
    absent = [Param(name, value) for name, value in params.items() if name not in known]
    for start in range(0, len(absent), _PARAMS):
        client.log_batch(run.info.run_id, params=absent[start : start + _PARAMS])
    for name, value in params.items():
        if known.get(name, value) != value:
            client.set_tag(run.info.run_id, f"agpo.param.{name}", value)


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = (value if isinstance(value, str) else json.dumps(value))[:_TEXT]
    return flat


def _flow_run_tags(attempt: str, note: str) -> dict[str, str]:
    """The Prefect flow run as tags, and as a link in the run's description, which has one line an attempt."""
    if flow_run.id is None:
        return {}
    link = f"Attempt {attempt}: Prefect flow run [{flow_run.name}]({flow_run.ui_url})"
    tags = {
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_name": flow_run.name,
        "prefect.flow_run_url": flow_run.ui_url,
        "prefect.deployment": deployment.name,
        "mlflow.note.content": f"{note}\n\n{link}".strip(),
    }
    return {name: str(value) for name, value in tags.items() if value is not None}


def _metric(name: str, value: float, time_ms: int, step: int) -> Metric:
    return Metric(name, value if math.isfinite(value) else math.nan, time_ms, step)


def _log_metrics(ref: RunRef, metrics: Sequence[Metric]) -> None:
    for start in range(0, len(metrics), _BATCH):
        connect(ref.tracking_uri).log_batch(ref.run_id, metrics[start : start + _BATCH])


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()})
    return table.getvalue()
