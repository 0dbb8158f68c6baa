"""The end of a flow run: the report on the pages of Prefect and MLflow."""

from tasks.pipeline import Pipeline
from tasks.relevance import table_of_students, table_of_teachers
from tasks.report import Report, decision_folder, frontier_files, make_report
from tasks.run_page import show_link, show_picture, show_table
from tasks.stage import stage_task
from tasks.tracking import log_json, log_picture, log_summary, log_text

_TEACHERS = "Teachers on the judged pairs of the confirmation split, in percent"
_STUDENTS = "Student and baselines on the same pairs, in percent"


@stage_task(name="summarize")
def summarize(pipeline: Pipeline) -> Report:
    """Show link, tables and pictures on the flow run's page, figures and card on the MLflow run."""
    report = make_report(pipeline)
    show_link(pipeline.parent)
    show_table(table_of_policies(report), "pass-at-k", "pass@k on the confirmation split, difference to the base")
    show_table(table_of_stages(report), "stages", "What each stage cost; a found stage shows what it cost when made")
    figures = {f"eval/{row.policy}/{row.set}/pass_at_{row.k}": row.value for row in report.pass_at_k}
    if report.relevance is not None:
        show_table(table_of_teachers(report.relevance), "teachers", _TEACHERS)
        if report.relevance.students:
            show_table(table_of_students(report.relevance), "students", _STUDENTS)
        figures |= {f"label/{entry.name}/macro_f1": entry.votes.macro_f1.value for entry in report.relevance.teachers}
        figures |= {
            f"student/{name}/macro_f1": entry.macro_f1.value for name, entry in report.relevance.students.items()
        }
    pictures = {f"frontier-{_hyphenate(label)}": file for label, file in frontier_files(pipeline).items()}
    folder = decision_folder(pipeline)
    if folder is not None:
        pictures["pass-at-k-curves"] = folder / "curves.png"
        log_text(pipeline.parent, (folder / "card.md").read_text(), "card.md")
    for name, file in pictures.items():
        show_picture(file, name, name.replace("-", " "))
        log_picture(pipeline.parent, file, name)
    log_json(pipeline.parent, report.model_dump(mode="json"), "report")
    log_summary(pipeline.parent, figures)
    return report


def _hyphenate(label: str) -> str:
    """A label as Prefect takes it in the key of an artifact."""
    return label.replace("_", "-").replace(" ", "-")


def table_of_policies(report: Report) -> list[dict[str, str]]:
    """One row a policy and set: pass@1 and pass@k of the largest k, in points, with the difference to the base."""
    largest = max((row.k for row in report.pass_at_k), default=1)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in report.pass_at_k:
        if row.k in (1, largest):
            line = found.setdefault((row.policy, row.set), {"policy": row.policy, "set": row.set})
            line[f"pass@{row.k}"] = f"{100 * row.value:.1f} [{100 * row.lower:.1f}, {100 * row.upper:.1f}]"
            interval = f"[{100 * row.difference_lower:+.1f}, {100 * row.difference_upper:+.1f}]"
            line[f"Δ pass@{row.k}"] = "" if row.policy == "base" else f"{100 * row.difference:+.1f} {interval}"
    return list(found.values())


def table_of_stages(report: Report) -> list[dict[str, str]]:
    return [
        {
            "stage": stage.stage,
            "state": "Found" if stage.found else "Completed",
            "seconds": f"{stage.seconds:.1f}",
            "CPU seconds": f"{stage.cpu_seconds:.1f}",
            "peak MiB": f"{stage.peak_memory_mib:.0f}",
            "key": stage.artifact.key[:12],
        }
        for stage in report.stages
    ]
