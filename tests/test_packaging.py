from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*groups: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(each.name): each for group in groups for each in map(Requirement, group)}


def test_constraints_pin_every_dependency_inside_its_range() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = requirements(lines)
    tested = [group for extra, group in EXTRAS.items() if extra != "vllm"]  # which needs an older Prefect
    for name, requirement in requirements(PROJECT["dependencies"], *tested).items():
        assert name in pins, f"{name} has no tested version"
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert pin.version in requirement.specifier


def test_the_service_and_the_extra_have_the_same_vllm() -> None:
    wanted = requirements(EXTRAS["vllm"])["vllm"].specifier
    pins = {}
    for build in ("cpu", "gpu"):
        lines = (ROOT / f"infra/vllm/requirements-{build}.txt").read_text().splitlines()
        (pins[build],) = [str(each.specifier) for each in map(Requirement, lines[1:]) if each.name.startswith("vllm")]
    assert pins["cpu"] == pins["gpu"]
    assert pins["gpu"].removeprefix("==") in wanted


@pytest.mark.parametrize(
    ("folders", "groups"),
    [
        (["agpo", "tasks", "flows"], [PROJECT["dependencies"], EXTRAS["pipeline"], EXTRAS["s3"]]),
        (["tests"], [PROJECT["dependencies"], *EXTRAS.values()]),
    ],
)
def test_every_imported_package_is_declared(folders: list[str], groups: list[list[str]]) -> None:
    declared = set(requirements(*groups))
    providers = packages_distributions()
    # compression is Python's since 3.14, scorer lies beside the served student, agpo_vllm and vllm where vLLM runs
    own = {"agpo", "tasks", "flows", "tests", "compression", "scorer", "agpo_vllm", "vllm"}
    undeclared = {
        module: str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for module in imported_modules(path) - own - sys.stdlib_module_names
        if not declared & {canonicalize_name(name) for name in providers.get(module, [module])}
    }
    assert undeclared == {}


def imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module.split(".")[0])
    return modules


def test_settings_and_profiles_load_without_torch_or_pipeline() -> None:
    code = "import sys, agpo.profile; print({'torch', 'transformers', 'prefect', 'mlflow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_make_help_lists_the_targets() -> None:
    found = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in found.stdout.splitlines()}
    assert {"demo", "test", "lint", "bench", "chaos", "clean"} <= listed


class TestSetUp:
    """The environment's set-up, with a Python that writes down what it is asked to do."""

    @pytest.fixture(autouse=True)
    def _venv(self, tmp_path: Path) -> None:
        self.venv, self.log = tmp_path / "venv", tmp_path / "log"
        (self.venv / "bin").mkdir(parents=True)
        python = self.venv / "bin" / "python"
        python.write_text(f'#!/bin/sh\necho "$@" >> {self.log}\ncase "$*" in *+cpu*) exit 1;; esac\n')
        python.chmod(0o755)

    def set_up(self, extras: str, torch: str = "") -> list[str]:
        """The requests to pip, with the options that all have left out."""
        self.log.write_text("")
        environment = os.environ | {"PYTHON": "python3", "TORCH": torch}
        subprocess.run(
            [ROOT / ".ci/set-up", self.venv, extras], cwd=ROOT, env=environment, check=True, capture_output=True
        )
        return [line.split(" -qq ")[1] for line in self.log.read_text().splitlines()]

    def test_a_cpu_build_of_torch_is_tried_first(self) -> None:
        cpu, other, project = self.set_up("pipeline,s3")
        assert cpu == f"{other}+cpu"
        assert other.startswith("torch==")
        assert project.endswith("--editable .[pipeline,s3]")

    def test_the_rest_is_held_by_the_constraints_torch_is_not(self) -> None:
        self.set_up("pipeline")
        held = (self.venv / "constraints.txt").read_text()
        assert "\nprefect==" in held
        assert "\ntorch==" not in held

    def test_a_second_time_nothing_is_done(self) -> None:
        assert self.set_up("pipeline,s3,dev")
        assert self.set_up("pipeline,s3,dev") == []
        assert self.set_up("pipeline,s3") == []

    def test_more_extras_are_added(self) -> None:
        self.set_up("pipeline,s3")
        assert self.set_up("pipeline,s3,dev")[-1].endswith(".[pipeline,s3,dev]")

    def test_another_torch_is_installed_as_it_was_asked_for(self) -> None:
        self.set_up("pipeline")
        assert self.set_up("pipeline", "torch==9.9 --index-url INDEX")[0] == "torch==9.9 --index-url INDEX"
        assert (self.venv / "torch.txt").read_text() == "torch==9.9 --index-url INDEX"


def test_set_up_refuses_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\n[ "$1" = --version ]\n')
    old.chmod(0o755)
    found = subprocess.run(
        [ROOT / ".ci/set-up", tmp_path / "venv", "dev"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert "Python 3.9.2; Python 3.11 or later is needed" in found.stderr
    assert not (tmp_path / "venv").exists()


class TestSkips:
    """What tests/conftest.py does about skipped tests, in a project of its own."""

    @pytest.fixture(autouse=True)
    def _project(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        shutil.copy(ROOT / "tests/conftest.py", tmp_path)
        (tmp_path / "test_sample.py").write_text(
            "import pytest\n"
            "def test_passes(): pass\n"
            "def test_skips(): pytest.skip('no GPU here')\n"
            "@pytest.mark.xfail\ndef test_known(): assert False\n"
        )
        (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")

    def run(self, allowed: str, workers: str = "0") -> subprocess.CompletedProcess[str]:
        (self.folder / "allowed_skips").write_text(allowed)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, "."]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_one_that_is_not_listed_fails_the_run(self, workers: str) -> None:
        found = self.run("# none\n", workers)
        assert found.returncode == 1, found.stdout
        assert "NOT LISTED in tests/allowed_skips: test_sample.py::test_skips: no GPU here" in found.stdout
        assert "NOT LISTED in tests/allowed_skips: test_module.py: could not import 'no_such_module'" in found.stdout
        assert "test_known" not in found.stdout

    def test_listed_ones_are_shown_with_their_reasons(self) -> None:
        found = self.run("test_sample.py::test_skips  needs a GPU\ntest_module  needs the module\n")
        assert found.returncode == 0, found.stdout
        assert "\ntest_sample.py::test_skips: no GPU here" in found.stdout
        assert "1 passed" in found.stdout.splitlines()[-1]
