"""The ``agpo`` command.

Commands import what they need when they run: help and plan answer at once, without torch, Prefect or MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from agpo.profile import SettingsError, load_settings
from agpo.settings import NightlyRun, TrainRun
from flows.console import open_console

Flow = Literal["train", "evaluate", "promote", "label", "distil", "nightly"]
_DEMO = ("demo", "shop")  # the profiles of its two nights

Profile = Annotated[str | None, typer.Option("--profile", help="A name in infra/profiles, or a .toml file.")]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        default_factory=list,
        show_default=False,
        help="A setting, e.g. learner.rate=1e-4; repeatable.",
    ),
]
StoreAddress = Annotated[
    str | None, typer.Option("--store", help="Where artifacts go: a folder or s3://bucket/prefix.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome as JSON too.")]

app = typer.Typer(
    help="Train language models with verifiable rewards by AGPO, and check their reasoning boundary.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = open_console()


def main() -> None:
    app()


@contextmanager
def _bad_input_exits() -> Iterator[None]:
    """Bad input ends the command with its message and exit code 2, without a traceback."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        yield
    except SettingsError as error:
        errors.print(f"[bold red]Wrong settings ({len(error.problems)}):[/]")
        for problem in error.problems:
            errors.print(f"  {problem}", markup=False)
        raise typer.Exit(2) from None
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        errors.print(f"Error: {error}", markup=False, style="bold red")
        raise typer.Exit(2) from None


def _flow_settings(flow: Flow, profile: str | None, sets: list[str]) -> TrainRun:
    """The settings of a flow. A profile describes a whole night; training alone takes its part of it."""
    with _bad_input_exits():
        night = load_settings(NightlyRun, profile, sets)
        if flow in ("label", "distil"):
            night.check_labels()
    if flow == "train":
        return TrainRun(**{name: getattr(night, name) for name in TrainRun.model_fields})
    return night


@app.command()
def demo(
    sets: Sets,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="A name in infra/profiles, or a .toml file; repeatable. Default: demo, then shop."),
    ] = None,
    store: StoreAddress = None,
    prefect_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free one.")] = None,
    mlflow_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free one.")] = None,
    json: JsonFile = None,
) -> None:
    """Train small models from scratch: puzzles, then search-ads relevance with labels and a student."""
    nights = {name: _flow_settings("nightly", name, sets) for name in profile or _DEMO}
    from flows import demo as nights_after_another

    nights_after_another.demo(nights, store=store, prefect_port=prefect_port, mlflow_port=mlflow_port, json_path=json)


@app.command()
def run(
    flow: Annotated[Flow, typer.Argument()],
    sets: Sets,
    profile: Profile = None,
    store: StoreAddress = None,
    json: JsonFile = None,
) -> None:
    """Run a flow; what is unchanged since an earlier run is found, not made again."""
    settings = _flow_settings(flow, profile, sets)
    from flows import launch

    launch.run_flow(flow, settings, store=store, json_path=json)


@app.command()
def compare(
    what: Annotated[Literal["relevance"], typer.Argument(help="Teachers by the labels they give.")],
    sets: Sets,
    profile: Annotated[str, typer.Option(help="As for run; demo is the relevance part of the demo.")] = "demo",
    store: StoreAddress = None,
    json: JsonFile = None,
) -> None:
    """Compare what the labels of base, supervised base, GRPO, AGPO and gold are worth, by the students they make."""
    settings = _flow_settings("label", _DEMO[1] if profile == _DEMO[0] else profile, sets)
    from flows import launch

    launch.run_flow("compare", settings, store=store, json_path=json)


@app.command()
def plan(
    sets: Sets,
    flow: Annotated[Flow | None, typer.Argument()] = None,
    profile: Profile = None,
    store: StoreAddress = None,
) -> None:
    """Show the resolved settings and what would run or be found; without a flow or profile, for the demo's nights."""
    profiles = _DEMO if flow is None and profile is None else (profile,)
    planned = [_flow_settings(flow or "nightly", name, sets) for name in profiles]
    from flows.plan import plan_table

    for settings in planned:
        console.print(plan_table(flow or "nightly", settings, store=store))


@app.command()
def up(
    prefect_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free one.")] = None,
    mlflow_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free one.")] = None,
) -> None:
    """Start Prefect, MLflow and a worker on this machine, and deploy all flows with their schedules."""
    from flows import up as services

    with _bad_input_exits():
        try:
            running = services.up(prefect_port, mlflow_port)
        except RuntimeError as error:
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"Error: {error}", markup=False)
            raise typer.Exit(1) from None
    services.print_addresses(running)


@app.command()
def down() -> None:
    """End what `agpo up` has started; runs write a checkpoint and can go on later."""
    from flows import up as services

    ended = services.down()
    console.print(f"Ended: {', '.join(ended)}" if ended else "Nothing was started by agpo up.")


@app.command()
def status() -> None:
    """Show what `agpo up` has started; exit code 1 unless all of it runs."""
    from flows import up as services

    found = services.status()
    table = Table("Service", "State", "Address", box=None, pad_edge=False)
    for each in found:
        table.add_row(each.service, f"[{'green' if each.good else 'bold red'}]{each.state}[/]", each.address)
    console.print(table if found else "Nothing was started by agpo up.")
    if not found or not all(each.good for each in found):
        raise typer.Exit(1)


@app.command()
def doctor(
    engine: Annotated[
        list[str] | None, typer.Option(metavar="http://HOST:PORT", help="A vLLM engine to ask too; repeatable.")
    ] = None,
) -> None:
    """Check versions, devices, disk, servers and engines; exit code 1 if something will not work."""
    from flows.cli_doctor import examine

    with _bad_input_exits():
        findings = list(examine(engine or ()))
    table = Table("", "Found", "", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(finding.what, finding.found, "[green]ok[/]" if finding.good else "[bold red]check[/]")
    console.print(table)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def verify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL or Parquet: id, response, gold.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="JSONL or Parquet: a verdict per row, in order.")],
    kind: Annotated[str, typer.Option(help="The verifier: math, countdown, label or gym.")],
    timeout: Annotated[float, typer.Option(min=0.01, help="CPU seconds per answer.")] = 5.0,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
) -> None:
    """Verify answers against their gold: correct, wrong or unverifiable, with the cause."""
    from agpo.verify.command import verify_file

    with _bad_input_exits():
        counts = verify_file(kind, source, target, timeout, workers)
    console.print(f"{target}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


@app.command()
def passk(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL or Parquet: problem, n samples, c correct.")],
    k: Annotated[str, typer.Option(help="Values of k, with commas between.")] = "1,4,16,64",
) -> None:
    """Compute the unbiased pass@k curve with its 95 % interval over problems."""
    from agpo.evaluation.command import passk_file

    with _bad_input_exits():
        curve = passk_file(source, _parse_ks(k))
    table = Table("k", "pass@k", "95 % interval", "problems", box=None, pad_edge=False)
    for row in curve.iter_rows(named=True):
        interval = f"{row['lower']:.4f} to {row['upper']:.4f}"
        table.add_row(str(row["k"]), f"{row['pass_at_k']:.4f}", interval, str(row["problems"]))
    console.print(table)


def _parse_ks(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--k {text}: accepted are integers of at least 1, separated by commas") from None


@app.command()
def rollouts(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The key of a training run, or its beginning.")],
    wrong: Annotated[bool, typer.Option("--wrong", help="Only wrong answers.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most rollouts shown.")] = 20,
) -> None:
    """Show journalled rollouts of a training run with their verdicts."""
    from flows.inspection import show_rollouts

    with _bad_input_exits():
        show_rollouts(run, wrong, limit)


@app.command()
def lineage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The id of a label, or the key of an artifact.")],
) -> None:
    """Show where a label or an artifact comes from: answers, teacher, training, data, MLflow runs."""
    from flows.lineage import show_lineage

    with _bad_input_exits():
        show_lineage(name)


@app.command()
def labels(
    teacher: Annotated[str, typer.Option(metavar="VERSION", help="A version or alias of the registered policy.")],
    family: Annotated[str, typer.Option(help="The problem family of the policy.")] = "shop",
) -> None:
    """Show the labels that a teacher has given."""
    from flows.lineage import show_labels

    with _bad_input_exits():
        show_labels(teacher, family)


review = typer.Typer(help="Decide about answers that two verifiers read differently.", no_args_is_help=True)
app.add_typer(review, name="review")


@review.command("export")
def export_review(
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A new CSV file.")],
) -> None:
    """Write the disagreements of all training runs, with an empty column for decisions."""
    from flows.review import export

    with _bad_input_exits():
        console.print(export(target), markup=False)


@review.command("import")
def import_review(
    decisions: Annotated[Path, typer.Argument(metavar="IN", help="The CSV file, decisions filled in.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Annotations, Parquet; what is there is kept.")],
) -> None:
    """Make decisions annotations, which later runs use in the place of the verifier's verdicts."""
    from flows.review import import_

    with _bad_input_exits():
        console.print(import_(decisions, target), markup=False)
