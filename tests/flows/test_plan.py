from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import typer
from rich.console import Console

from agpo.artifacts import Store
from agpo.objectives import Agpo, Grpo
from agpo.session import Session
from agpo.settings import FolderBase, TableProblems, TrainRun
from flows.naming import name_objectives
from flows.plan import Planned, plan_run, plan_table
from tasks.location import STORE_VARIABLE
from tests.agpo.session_start import RUN, Start, open_session, start, store, take_step
from tests.flows.night import smoke

__all__ = ["open_session", "start", "store"]

ROOT = Path(__file__).resolve().parents[2]


def states(planned: list[Planned]) -> dict[str, str]:
    return {stage.stage: stage.state for stage in planned}


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    planned = list(plan_run("nightly", smoke(), Store(tmp_path)))
    assert states(planned) == {
        "prepare": "to run",
        "warm_start": "to run",
        "train agpo": "to run, 3 steps",
        "interpolate agpo 0.5": "to run",
        "evaluate selection base": "to run",
        "evaluate selection agpo 0.5": "to run",
        "evaluate selection agpo 1.0": "to run",
        "select agpo": "to run",
        "evaluate confirmation base": "to run",
        "evaluate confirmation agpo trained": "to run",
        "evaluate confirmation agpo candidate": "to run, after selection",
        "judge": "to run, after selection",
    }
    assert not list(tmp_path.iterdir())


def test_without_interpolation_there_is_no_selection(tmp_path: Path) -> None:
    planned = list(plan_run("promote", smoke("interpolate.weights=[1.0]"), Store(tmp_path)))
    assert list(states(planned))[3:] == [
        "evaluate confirmation base",
        "evaluate confirmation agpo trained",
        "evaluate confirmation agpo candidate",
        "judge",
    ]
    assert planned[4].key == planned[5].key


def test_only_what_the_flow_does_is_planned(tmp_path: Path) -> None:
    run = smoke().model_copy(update={"compare": (Grpo(),)})
    names = {
        flow: list(states(list(plan_run(flow, run, Store(tmp_path))))) for flow in ("evaluate", "promote", "nightly")
    }
    assert names["promote"] == [*names["evaluate"], "judge"]
    rivals = names["nightly"][len(names["promote"]) :]
    assert names["nightly"][: len(names["promote"])] == names["promote"]
    assert rivals[0] == "train grpo"
    assert all("grpo" in name for name in rivals)
    train = TrainRun(**{name: getattr(run, name) for name in TrainRun.model_fields})
    planned = plan_run("train", train, Store(tmp_path))
    assert [stage.stage for stage in planned] == ["prepare", "warm_start", "train agpo"]


def test_a_second_objective_of_a_kind_has_a_label_of_its_own() -> None:
    run = smoke().model_copy(update={"compare": (Grpo(), Agpo(delta=0.5))})
    assert name_objectives(run) == {"agpo": run.objective, "grpo": Grpo(), "agpo 2": Agpo(delta=0.5)}


def test_a_training_run_says_how_far_it_is(start: Start, store: Store) -> None:
    def state() -> str:
        return states(list(plan_run("train", RUN, store)))["train agpo"]

    assert states(list(plan_run("train", RUN, store)))["warm_start"] == "found"
    assert state() == "to run, 4 steps"
    with Session(RUN, store, start.problems, start.base) as session:
        for step in session.remaining():
            take_step(session, step)
            if step == 1:
                assert state() == "to run, 2 of 4 steps"
        session.publish()
    assert state() == "found"
    longer = RUN.model_copy(update={"steps": 9})
    assert states(list(plan_run("train", longer, store)))["train agpo"] == "to run, 4 of 9 steps"
    shorter = RUN.model_copy(update={"steps": 1})
    assert states(list(plan_run("train", shorter, store)))["train agpo"] == "to run, 1 of 1 steps"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problems": TableProblems(path="missing.jsonl")}, "problems.path = 'missing.jsonl': no file is there"),
        ({"base": FolderBase(path="missing")}, "base.path: missing is not a Hugging Face model folder"),
    ],
)
def test_a_missing_file_ends_the_command(
    settings: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        plan_table("train", RUN.model_copy(update=settings))
    assert ended.value.exit_code == 2
    assert message in capsys.readouterr().err


def test_a_chunk_that_does_not_fit_is_advised_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = psutil.virtual_memory()._replace(available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    run = smoke("device=cpu")
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    Console(width=200).print(plan_table("nightly", run))
    assert f"advice: rollout.chunk = {run.rollout.chunk} may need" in capsys.readouterr().out


def test_the_command_needs_no_server_and_no_torch(start: Start, tmp_path: Path) -> None:
    code = (
        "import sys; from flows.cli import app\n"
        "try: app(['plan', 'nightly', '--profile', 'smoke'])\n"
        "except SystemExit as end: print('exit', end.code)\n"
        "print('loaded:', {'torch', 'transformers', 'prefect', 'mlflow'} & set(sys.modules))"
    )
    home = tmp_path / "home"
    shutil.copytree(start.folder, home / "store")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "AGPO_HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.stdout.endswith("exit 0\nloaded: set()\n")
    assert "train agpo" in found.stdout
    assert "to run, 3 steps" in found.stdout
    assert "'problems': 4" in found.stdout  # the resolved settings
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1.0
