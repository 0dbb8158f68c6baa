"""The demo: a night of number puzzles, then a night of the shop, and one table of what both found."""

from __future__ import annotations

import json
from pathlib import Path

from agpo.relevance import Interval
from agpo.settings import TrainRun
from flows.launch import open_servers, print_line, print_table, run_here, write_json
from flows.servers import how_to_open
from flows.sources import check_sources
from tasks.location import home
from tasks.relevance import points
from tasks.report import Report


def demo(
    nights: dict[str, TrainRun],
    *,
    store: str | None,
    prefect_port: int | None,
    mlflow_port: int | None,
    json_path: Path | None,
) -> None:
    """Run the nights one after another, by profile, and say how to look at them afterwards."""
    for settings in nights.values():
        check_sources(settings)
    reports: dict[str, Report] = {}
    with open_servers(store, prefect_port, mlflow_port):
        for profile, settings in nights.items():
            print_line(f"\nProfile {profile}")
            report = run_here("nightly", settings)
            assert isinstance(report, Report)
            reports[profile] = report
    if json_path is not None:
        found = {profile: report.model_dump(mode="json") for profile, report in reports.items()}
        write_json(json_path, json.dumps(found, indent=1))
    print_line("")
    print_table("What the demo found, [95 % interval]", table_of_demo(list(reports.values())))
    print_line("Open Prefect and MLflow:")
    for command in how_to_open(home()):
        print_line(f"  {command}")


def table_of_demo(reports: list[Report]) -> list[dict[str, str]]:
    """Each night's main figures: what its policies solve, or how its teachers label and its student does."""
    return [row for report in reports for row in (_relevance_rows(report) or _boundary_rows(report))]


def _boundary_rows(report: Report) -> list[dict[str, str]]:
    largest = max((row.k for row in report.pass_at_k), default=1)
    return [
        _row(report, row.policy, f"{row.set} pass@{row.k}", Interval(value=row.value, lower=row.lower, upper=row.upper))
        for row in report.pass_at_k
        if row.k in (1, largest)
    ]


def _relevance_rows(report: Report) -> list[dict[str, str]]:
    found = report.relevance
    if found is None:
        return []
    teachers = {f"teacher: {entry.name}": entry.votes.macro_f1 for entry in found.teachers}
    students = {f"model: {name}": scores.macro_f1 for name, scores in found.students.items()}
    return [_row(report, name, "macro-F1", interval) for name, interval in (teachers | students).items()]


def _row(report: Report, model: str, measure: str, interval: Interval) -> dict[str, str]:
    return {"problems": report.family, "model": model, "measure": measure, "percent": points(interval)}
