"""The student as an MLflow model: this file is its code, and `agpo/student/scorer.py` lies beside it.

It runs where the model serves, so it imports nothing else of this project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

if TYPE_CHECKING:
    from agpo.student.scorer import Scorer


class StudentModel(PythonModel):
    """Query, title and, optionally, attributes of an ad → label, name, relevant, expected gain and probabilities."""

    def load_context(self, context: Any) -> None:
        import scorer  # type: ignore[import-not-found]

        self.scorer: Scorer = scorer.Scorer(context.artifacts["student"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """One row a row of the input. A row that cannot be read is an error that names it, for a server a 400."""
        columns = {name: _read_texts(model_input, name) for name in ("query", "title")}
        if "attributes" in model_input:
            columns["attributes"] = _read_texts(model_input, "attributes")
        try:
            probabilities = self.scorer.score(columns["query"], columns["title"], columns.get("attributes"))
        except ValueError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        labels = self.scorer.labels
        chosen = [labels[level] for level in probabilities.argmax(axis=1)]
        return pd.DataFrame(
            {
                "label": [label.letter for label in chosen],
                "name": [label.name for label in chosen],
                "relevant": [label.relevant for label in chosen],
                "expected_gain": probabilities @ np.array([label.gain for label in labels]),
                "probabilities": [
                    {label.letter: float(share) for label, share in zip(labels, row, strict=True)}
                    for row in probabilities
                ],
            },
            index=model_input.index,
        )


def _read_texts(rows: pd.DataFrame, name: str) -> list[Any]:
    """A column's values, with None for what pandas knows as missing."""
    return [None if value is None or value is pd.NA or value != value else value for value in rows[name]]


set_model(StudentModel())
