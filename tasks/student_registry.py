"""The registry of students: one registered model per problem family, whose versions can be served.

Unlike a policy's, a version holds files: what `mlflow models serve` needs, and nothing else of the artifact.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Map

import agpo.student
from agpo.artifacts import ArtifactRef
from tasks.model_versions import ModelVersions, evidence_tags, reference_tags
from tasks.tracking import RunRef

_CODE = Path(__file__).with_name("student_model.py")
_SCORER = Path(agpo.student.__file__).with_name("scorer.py")
_SERVING = ("mlflow", "numpy", "onnxruntime", "pandas", "tokenizers")
_SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.string, "query"),
            ColSpec(DataType.string, "title"),
            ColSpec(DataType.string, "attributes", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(DataType.string, "label"),
            ColSpec(DataType.string, "name"),
            ColSpec(DataType.boolean, "relevant"),
            ColSpec(DataType.double, "expected_gain"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    ),
)
_EXAMPLE = pd.DataFrame([{"query": "red running shoes", "title": "Noria running shoes", "attributes": "colour: red"}])


class StudentRegistry(ModelVersions):
    """The registered model ``agpo-student-<family>``; ``models:/agpo-student-<family>@champion`` is what serves."""

    def __init__(self, tracking_uri: str, family: str) -> None:
        super().__init__(
            tracking_uri,
            name=f"agpo-student-{family}",
            description=f"Students that tell how relevant an ad is to a query, on the problems `{family}`.",
        )

    def register(
        self,
        student: ArtifactRef,
        folder: Path,
        run: RunRef,
        evidence: Mapping[str, Any] | None = None,
        card: str = "",
    ) -> int:
        """The version of this student, made from its fetched ``folder`` if the family has none with its key.

        ``evidence`` becomes tags ``evidence.<path>``, ``card`` (Markdown) the version's description; both replace those
        of an earlier registration.
        """
        tags = evidence_tags(evidence or {})
        found = self._find(student.key)
        if found is None:
            return self._create_version(student, self._log_model(student, folder, run), run, tags, card)
        self._annotate(found, tags, card)
        return int(found.version)

    def _log_model(self, student: ArtifactRef, folder: Path, run: RunRef) -> LoggedModel:
        """The student's files in MLflow. A model that was begun before a kill is gone on with."""
        name = f"{self.name}-{student.key[:12]}"
        begun = self.client.search_logged_models([run.experiment_id], filter_string=f"name = '{name}'", max_results=1)
        model = next(iter(begun), None) or self.client.create_logged_model(
            experiment_id=run.experiment_id,
            name=name,
            source_run_id=run.run_id,
            params=reference_tags(student),
            model_type="student",
        )
        if model.status != LoggedModelStatus.READY:
            with tempfile.TemporaryDirectory(prefix="agpo-student-") as made:
                save_model(folder, Path(made) / "model", student.key)
                self.client.log_model_artifacts(model.model_id, str(Path(made) / "model"))
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return model


def save_model(student: Path, target: Path, key: str) -> None:
    """Write a student's folder as an MLflow pyfunc, models from code: no pickle, no run, no tracking store."""
    graph = json.loads((student / "student.json").read_text(encoding="utf-8"))["model"]
    with tempfile.TemporaryDirectory(prefix="agpo-student-") as made:
        serving = Path(made) / "student"
        serving.mkdir()
        for name in ("student.json", "tokenizer.json", graph):
            shutil.copy(student / name, serving / name)
        mlflow.pyfunc.save_model(
            target,
            python_model=str(_CODE),
            code_paths=[str(_SCORER)],
            artifacts={"student": str(serving)},
            signature=_SIGNATURE,
            input_example=_EXAMPLE,
            pip_requirements=[f"{package}=={installed(package)}" for package in _SERVING],
            mlflow_model=Model(model_uuid=key[:32]),
        )
