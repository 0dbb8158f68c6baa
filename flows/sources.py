"""What a run reads from outside, looked for before anything starts."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from agpo.learner.folder import model_files
from agpo.problems.source import find_evaluation_files, find_files
from agpo.settings import FolderBase, NightlyRun, RowProblems, TableProblems, TrainRun


def check_sources(run: TrainRun) -> None:
    """End the command with exit code 2 and a line that names the setting, where a file of the run is missing."""
    try:
        if isinstance(run.problems, TableProblems):
            find_files(run.problems.path)
        if isinstance(run.problems, RowProblems):
            find_evaluation_files(run.problems)
        if isinstance(run.base, FolderBase):
            model_files(run.base.path)
        if run.verify.annotations and not Path(run.verify.annotations).is_file():
            raise FileNotFoundError(f"verify.annotations = {run.verify.annotations!r}: no file is there")
        if isinstance(run, NightlyRun):
            _check_relevance(run)
    except (FileNotFoundError, ValueError) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"Error: {error}", markup=False, style="bold red")
        raise typer.Exit(2) from None


def _check_relevance(run: NightlyRun) -> None:
    if run.label is not None and run.label.path:
        find_files(run.label.path, "label.path")
    for place, encoder in enumerate(run.distil.encoders if run.distil else ()):
        if encoder.kind == "folder":
            model_files(encoder.path, f"distil.encoders.{place}.path")
