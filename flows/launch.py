"""Run a flow from the command line: with a Prefect API, MLflow and a readable end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from agpo.settings import TrainRun
from flows.console import open_console
from flows.servers import prefect_server
from flows.sources import check_sources
from tasks.compare import Comparison, table_of_comparison
from tasks.location import STORE_VARIABLE, home
from tasks.relevance import Relevance, table_of_students, table_of_teachers
from tasks.report import Report
from tasks.summary import table_of_policies, table_of_stages


def run_flow(
    flow: str,
    settings: TrainRun,
    *,
    store: str | None = None,
    json_path: Path | None = None,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
) -> None:
    """Run a flow and print its report. Whatever the gate decides, this returns normally; a failed flow exits with 1."""
    check_sources(settings)
    with open_servers(store, prefect_port, mlflow_port):
        outcome = run_here(flow, settings)
    if json_path is not None:
        write_json(json_path, outcome.model_dump_json(indent=1))


@contextmanager
def open_servers(store: str | None, prefect_port: int | None, mlflow_port: int | None) -> Iterator[None]:
    """A Prefect API for the flows of the block, which write to ``store``."""
    if store:
        os.environ[STORE_VARIABLE] = store if "://" in store else str(Path(store).absolute())
    with prefect_server(home(), prefect_port, mlflow_port):
        yield


def run_here(flow: str, settings: TrainRun) -> Report | Comparison:
    """Run a flow in this process and print what it found; one that fails ends the command with code 1."""
    state = _find(flow)(settings, return_state=True)
    if not state.is_completed():  # the log has the traceback
        message = f"{flow} {state.name.lower()}: {state.message}\nThe same command goes on from what is stored."
        Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False, style="bold red")
        raise typer.Exit(1)
    outcome: Report | Comparison = state.result()
    if isinstance(outcome, Comparison):
        print_table("Labels and students of each teacher, in percent", table_of_comparison(outcome))
    else:
        print_report(outcome)
    print_line(f"MLflow run: {outcome.mlflow_run}")
    return outcome


def write_json(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def print_table(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Nothing where there are no rows."""
    if not rows:
        return
    console = open_console()
    console.print(f"[italic]{title}[/]")  # as the table's title it would wrap at the table's width
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    console.print()


def print_line(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def print_report(report: Report) -> None:
    console = Console(soft_wrap=True, highlight=False)
    print_table("Stages", table_of_stages(report))
    print_table("pass@k in points, [95 % interval]", table_of_policies(report))
    if report.nothing_new:
        console.print("Nothing new: every stage was found.")
    for label, weight in report.weights.items():
        console.print(f"{label}: candidate is {weight:g} of the way from base to trained policy")
    if report.outcome is not None:
        console.print(f"[bold]Gate: {report.outcome}[/]")
        for reason in report.reasons:
            console.print(f"  {reason}", markup=False)
    if report.relevance is not None:
        _print_relevance(console, report.relevance)


def _print_relevance(console: Console, found: Relevance) -> None:
    console.print()
    print_table("Teachers on judged pairs, in percent", table_of_teachers(found))
    right = "" if found.label_accuracy is None else f", {100 * found.label_accuracy:.1f} % of them right"
    console.print(f"Labels: {found.pairs:,} pairs by {found.labelled_by}, agreement {found.agreement:.3f}{right}\n")
    print_table("Student and baselines on the same pairs, in percent", table_of_students(found))
    if found.outcome is not None:
        console.print(f"[bold]Student: {found.outcome}[/]")
        for reason in found.reasons:
            console.print(f"  {reason}", markup=False)


def _find(flow: str) -> Any:
    """Each flow's module is imported only when it runs."""
    from importlib import import_module

    return getattr(import_module(f"flows.{flow}"), flow)
