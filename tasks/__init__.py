"""Prefect tasks, MLflow tracking and the model registry: what connects the library to the pipeline."""

import os
from pathlib import Path

# Prefect, MLflow and matplotlib read these when they are first imported, which every module here does after this one.
# Unless told otherwise they would write into the user's home directory and report their use.
_home = Path(os.environ.get("AGPO_HOME", ".agpo")).absolute()
for _name, _value in {
    "PREFECT_HOME": str(_home / "prefect"),
    "MPLCONFIGDIR": str(_home / "matplotlib"),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "true",
}.items():
    os.environ.setdefault(_name, _value)
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes only the last part of the path
