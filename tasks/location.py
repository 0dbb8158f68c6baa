"""Where a run reads and writes: everything lies below one folder unless the environment says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from agpo.artifacts import Store

HOME_VARIABLE = "AGPO_HOME"  # everything written lies below it
STORE_VARIABLE = "AGPO_STORE"  # artifacts and journals: a folder, s3://…; default: <home>/store
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"  # default: SQLite in the home folder


def home() -> Path:
    return Path(os.environ.get(HOME_VARIABLE, ".agpo")).absolute()


def store_address() -> str:
    address = os.environ.get(STORE_VARIABLE) or str(home() / "store")
    return address if "://" in address else str(Path(address).absolute())


def open_store() -> Store:
    """The store; copies of what lies elsewhere go below the home folder, as everything that is written."""
    return Store(store_address(), copies=home() / "fetched")


def tracking_uri(folder: Path | None = None) -> str:
    """MLflow's tracking URI: the user's, else an SQLite file in ``folder`` (the home folder)."""
    return os.environ.get(TRACKING_VARIABLE) or f"sqlite:///{(folder or home()).absolute() / 'mlflow.db'}"
