"""What a run reads from outside, looked for before anything starts."""

from __future__ import annotations

import typer
from rich.console import Console

from agpo.learner.folder import model_files
from agpo.problems.source import find_files
from agpo.settings import FolderBase, TableProblems, TrainRun


def check_sources(run: TrainRun) -> None:
    """End the command with exit code 2 and a line that names the setting, where a file of the run is missing."""
    try:
        if isinstance(run.problems, TableProblems):
            find_files(run.problems.path)
        if isinstance(run.base, FolderBase):
            model_files(run.base.path)
    except (FileNotFoundError, ValueError) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"Error: {error}", markup=False, style="bold red")
        raise typer.Exit(2) from None
