from __future__ import annotations

import importlib
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agpo.objectives import Agpo, Grpo
from agpo.settings import NightlyRun, TrainRun
from flows.cli import app

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calls]:
    """Puts a recorder where a command imports its work from."""

    def put(module: str, function: str, result: Any = None) -> Calls:
        calls: Calls = []

        def record(*arguments: Any, **options: Any) -> Any:
            calls.append((arguments, options))
            if isinstance(result, Exception):
                raise result
            return result

        fake = ModuleType(module)
        setattr(fake, function, record)
        package, _, name = module.rpartition(".")
        monkeypatch.setitem(sys.modules, module, fake)
        monkeypatch.setattr(importlib.import_module(package), name, fake, raising=False)
        return calls

    return put


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from flows.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: print('loaded:', {'torch', 'prefect', 'mlflow', 'polars'} & set(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.stdout.endswith("loaded: set()\n")
    assert all(command in found.stdout for command in ("demo", "run", "plan", "doctor", "verify", "passk", "rollouts"))
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1.0


def test_run_hands_over_flow_and_settings(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.launch", "run_flow")
    result = invoke("run", "nightly", "--profile", "demo", "--set", "objective.kind=grpo", "--json", "out.json")
    assert result.exit_code == 0, result.output
    ((flow, settings), options) = calls[0]
    assert flow == "nightly"
    assert isinstance(settings, NightlyRun)
    assert settings.objective == Grpo()
    assert options["json_path"] == Path("out.json")


def test_training_alone_takes_its_part_of_a_night(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.launch", "run_flow")
    assert invoke("run", "train", "--profile", "demo").exit_code == 0
    ((_, settings), _) = calls[0]
    assert type(settings) is TrainRun
    assert settings.objective == Agpo(delta=0.25, negative=-0.5, all_wrong="mask")


def test_demo_takes_profile_store_and_ports(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.demo", "demo")
    result = invoke("demo", "--profile", "smoke", "--store", "here", "--prefect-port", "4300", "--mlflow-port", "5300")
    assert result.exit_code == 0, result.output
    ((nights,), options) = calls[0]
    assert {profile: settings.steps for profile, settings in nights.items()} == {"smoke": 3}
    assert options == {"store": "here", "prefect_port": 4300, "mlflow_port": 5300, "json_path": None}


def test_the_demo_is_puzzles_and_then_the_shop(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.demo", "demo")
    assert invoke("demo").exit_code == 0
    ((nights,), _) = calls[0]
    assert [settings.family for settings in nights.values()] == ["countdown", "shop"]


def test_compare_takes_the_relevance_part_of_the_demo(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.launch", "run_flow")
    assert invoke("compare", "relevance").exit_code == 0
    ((flow, settings), _) = calls[0]
    assert (flow, settings.family) == ("compare", "shop")


def test_labels_need_settings_of_labels() -> None:
    found = invoke("run", "label", "--profile", "smoke")
    assert found.exit_code == 2
    assert "this run says nothing about labels; accepted: settings with label" in found.output


def test_plan_without_arguments_is_the_demo(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.plan", "plan_table", "the plan")
    result = invoke("plan")
    assert "the plan" in result.output
    assert [(flow, settings.family, settings.steps) for (flow, settings), _ in calls] == [
        ("nightly", "countdown", 300),
        ("nightly", "shop", 40),
    ]


def test_plan_of_a_flow_starts_from_the_defaults(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.plan", "plan_table", "")
    assert invoke("plan", "train").exit_code == 0
    assert calls[0][0] == ("train", TrainRun())


def test_wrong_settings_are_all_named_and_end_with_2() -> None:
    result = invoke("run", "train", "--set", "stps=3", "--set", "device=gpu")
    assert result.exit_code == 2
    assert "Wrong settings (2)" in result.stderr
    assert "did you mean steps?" in result.stderr
    assert "device" in result.stderr


def test_an_unknown_flow_names_the_flows() -> None:
    result = invoke("run", "trian")
    assert result.exit_code == 2
    assert "'train', 'evaluate', 'promote', 'label', 'distil', 'nightly'" in result.stderr


def test_verify_hands_over_its_arguments(replace: Callable[..., Calls]) -> None:
    calls = replace("agpo.verify.command", "verify_file", {"correct": 3, "wrong": 2, "unverifiable": 0})
    result = invoke("verify", "--kind", "math", "--timeout", "2.5", "in.jsonl", "out.jsonl")
    assert result.exit_code == 0
    assert "out.jsonl: 3 correct, 2 wrong, 0 unverifiable" in result.stdout
    assert calls[0][0] == ("math", Path("in.jsonl"), Path("out.jsonl"), 2.5, 2)


def test_bad_input_of_verify_ends_with_2(replace: Callable[..., Calls]) -> None:
    replace("agpo.verify.command", "verify_file", ValueError("row 3: gold is empty"))
    result = invoke("verify", "--kind", "math", "in.jsonl", "out.jsonl")
    assert result.exit_code == 2
    assert result.stderr == "Error: row 3: gold is empty\n"


def test_passk_prints_the_curve(tmp_path: Path) -> None:
    source = tmp_path / "counts.jsonl"
    source.write_text('{"problem": "a", "n": 4, "c": 2}\n{"problem": "b", "n": 4, "c": 0}\n')
    result = invoke("passk", str(source), "--k", "1,2,4")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()[1:] if line.strip()]
    assert [row[:2] for row in rows] == [["1", "0.2500"], ["2", "0.4167"], ["4", "0.5000"]]  # halves of .5, 5/6 and 1
    assert all(row[-1] == "2" for row in rows)


@pytest.mark.parametrize(
    ("source", "ks", "message"),
    [("counts.jsonl", "1,x", "--k 1,x"), ("missing.jsonl", "1", "missing.jsonl"), ("counts.jsonl", "8", "n = 4")],
)
def test_bad_input_of_passk_ends_with_2(tmp_path: Path, source: str, ks: str, message: str) -> None:
    (tmp_path / "counts.jsonl").write_text('{"problem": "a", "n": 4, "c": 2}\n{"problem": "b", "n": 4, "c": 0}\n')
    result = invoke("passk", str(tmp_path / source), "--k", ks)
    assert result.exit_code == 2
    assert message in result.stderr


def test_rollouts_hands_over_its_arguments(replace: Callable[..., Calls]) -> None:
    calls = replace("flows.inspection", "show_rollouts")
    assert invoke("rollouts", "abc", "--wrong", "--limit", "5").exit_code == 0
    assert calls[0][0] == ("abc", True, 5)
