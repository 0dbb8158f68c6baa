"""Run a flow from the command line: with a Prefect API, MLflow and a readable end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from agpo.settings import TrainRun
from flows.servers import how_to_open, prefect_server
from flows.sources import check_sources
from tasks.location import STORE_VARIABLE, home
from tasks.report import Report
from tasks.summary import table_of_policies, table_of_stages

_LOG_WIDTH = 120  # a log has no width of its own, and tables that wrap read badly


def demo(
    settings: TrainRun, *, store: str | None, prefect_port: int | None, mlflow_port: int | None, json_path: Path | None
) -> None:
    """The nightly flow on the embedded default, and how to look at it afterwards."""
    run_flow("nightly", settings, store=store, json_path=json_path, prefect_port=prefect_port, mlflow_port=mlflow_port)
    console = Console(soft_wrap=True, highlight=False)
    console.print("\nOpen Prefect and MLflow:")
    for command in how_to_open(home()):
        console.print(f"  {command}", markup=False)


def run_flow(
    flow: str,
    settings: TrainRun,
    *,
    store: str | None = None,
    json_path: Path | None = None,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
) -> Report:
    """Run a flow and print its report. Whatever the gate decides, this returns normally; a failed flow exits with 1."""
    check_sources(settings)
    if store:
        os.environ[STORE_VARIABLE] = store if "://" in store else str(Path(store).absolute())
    with prefect_server(home(), prefect_port, mlflow_port), _library_logs():
        state = _find(flow)(settings, return_state=True)
    if not state.is_completed():  # the log has the traceback
        message = f"{flow} {state.name.lower()}: {state.message}\nThe same command goes on from what is stored."
        Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False, style="bold red")
        raise typer.Exit(1)
    report: Report = state.result()
    print_report(report)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(report.model_dump_json(indent=1))
    return report


def print_report(report: Report) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    for title, rows in (
        ("Stages", table_of_stages(report)),
        ("pass@k in points, [95 % interval]", table_of_policies(report)),
    ):
        if rows:
            table = Table(title=title, title_justify="left", box=None, pad_edge=False)
            for column in rows[0]:
                table.add_column(column, no_wrap=True)
            for row in rows:
                table.add_row(*row.values())
            console.print(table)
            console.print()
    for label, weight in report.weights.items():
        console.print(f"{label}: candidate is {weight:g} of the way from base to trained policy")
    if report.outcome is not None:
        console.print(f"[bold]Gate: {report.outcome}[/]")
        for reason in report.reasons:
            console.print(f"  {reason}", markup=False)
    console.print(f"MLflow run: {report.mlflow_run}", markup=False, soft_wrap=True)


def _find(flow: str) -> Any:
    """Each flow's module is imported only when it runs."""
    from importlib import import_module

    return getattr(import_module(f"flows.{flow}"), flow)


@contextmanager
def _library_logs() -> Iterator[None]:
    """Show the library's own messages, which Prefect would drop below WARNING."""
    logger = logging.getLogger("agpo")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
