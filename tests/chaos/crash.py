"""Crashes inside this process before a given write to the store or to MLflow, where a signal rarely hits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from agpo.artifacts import local as local_files

_STORE_WRITES = {"write_file": 0, "create_file": 0, "copy_file": 1}  # where each has its target
_MLFLOW_WRITES = [
    name
    for name in vars(MlflowClient)
    if name.startswith(("create_", "delete_", "finalize_", "log_", "set_", "update_"))
]


class Crash(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@contextmanager
def crash_after(writes: int, *, mlflow: bool = True) -> Iterator[list[str]]:
    """Let so many writes pass and crash before the next; yields the names of those that passed."""
    passed: list[str] = []

    def count(name: str) -> None:
        if len(passed) == writes:
            raise Crash
        passed.append(name)

    def guard_file(write: Callable[..., Any], position: int) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            target = Path(arguments[position])
            if "lease" not in target.parts:  # released by a crash in this process, which goes on living
                count(target.name)
            return write(*arguments, **options)

        return guarded

    def guard_call(call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            count(call.__name__)
            return call(*arguments, **options)

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        for name, position in _STORE_WRITES.items():
            patch.setattr(local_files, name, guard_file(getattr(local_files, name), position))
        for name in _MLFLOW_WRITES if mlflow else ():
            patch.setattr(MlflowClient, name, guard_call(getattr(MlflowClient, name)))
        yield passed
