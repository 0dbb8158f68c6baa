from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import agpo.objectives as objectives
from agpo.objectives import OBJECTIVES, AdvantageEstimator, Agpo, Grpo, Objective, discovery
from agpo.objectives.losses import POLICY_LOSSES, TokenLoss

METHOD = """
    from typing import Literal
    from agpo.objectives import AdvantageEstimator

    class {name}(AdvantageEstimator):
        kind: Literal["{kind}"] = "{kind}"

        def advantages(self, rewards, groups, correct, context=None):
            return rewards
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes modules of a package of methods; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, **modules: str) -> str:
        for module in [each for each in sys.modules if each.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        folder = tmp_path / name
        folder.mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(text))
        return name

    return write


def stub_entry_points(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    def entry_points(group: str) -> list[EntryPoint]:
        return [EntryPoint(f"entry{index}", value, group) for index, value in enumerate(values)]

    monkeypatch.setattr(discovery, "entry_points", entry_points)


def test_every_module_of_the_folder_is_found() -> None:
    folder = Path(objectives.__file__).parent
    written = {path.stem for path in folder.glob("*.py") if "(AdvantageEstimator):" in path.read_text()}
    assert {kind_class.__module__.rsplit(".", 1)[1] for kind_class in OBJECTIVES.values()} == written
    assert OBJECTIVES["agpo"] is Agpo
    assert set(POLICY_LOSSES) == {"cispo", "gspo", "ppo_clip", "sapo"}


def test_a_file_is_all_that_a_method_needs(package: Any) -> None:
    name = package(
        "some_methods", second=METHOD.format(name="Second", kind="b"), first=METHOD.format(name="First", kind="a")
    )
    found = discovery.find_kinds(name, AdvantageEstimator)
    assert list(found) == ["a", "b"]
    chosen = TypeAdapter(discovery.tagged_union(found)).validate_python({"kind": "b"})
    assert type(chosen) is found["b"]


def test_a_third_party_adds_one_by_entry_point(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package("third_party", method=METHOD.format(name="Theirs", kind="theirs"))
    stub_entry_points(monkeypatch, "third_party.method:Theirs")
    assert {*discovery.find_kinds("agpo.objectives", AdvantageEstimator)} == {*OBJECTIVES, "theirs"}


def test_an_installed_package_is_found_and_chosen_in_the_settings(package: Any, tmp_path: Path) -> None:
    package("third_party_installed", method=METHOD.format(name="Theirs", kind="theirs"))
    metadata = tmp_path / "third_party_installed-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-installed\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[agpo.objectives]\ntheirs = third_party_installed.method:Theirs\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from agpo.settings import NightlyRun\n"
        "print(type(NightlyRun.model_validate({'objective': {'kind': 'theirs'}}).objective).__name__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "Theirs\n"


@pytest.mark.parametrize(
    ("module", "name", "error", "message"),
    [
        ("x = 1", "x", TypeError, r"entry point entry0 = broken\.method:x .*accepted: a subclass of agpo\.objectives"),
        ("x = 1", "y", ImportError, r"entry point entry0 = broken\.method:y .* cannot be loaded: AttributeError"),
        ("import no_such_module", "x", ImportError, "cannot be loaded: ModuleNotFoundError"),
        (
            METHOD.format(name="Taken", kind="grpo"),
            "Taken",
            ValueError,
            r"the kind 'grpo' is taken by agpo\.objectives",
        ),
        (METHOD.format(name="Bare", kind="x").replace(' = "x"', ""), "Bare", TypeError, "Bare needs a field kind"),
    ],
)
def test_a_wrong_entry_point_is_named(
    package: Any, monkeypatch: pytest.MonkeyPatch, module: str, name: str, error: type[Exception], message: str
) -> None:
    package("broken", method=module)
    stub_entry_points(monkeypatch, f"broken.method:{name}")
    with pytest.raises(error, match=message):
        discovery.find_kinds("agpo.objectives", AdvantageEstimator)


def test_the_union_is_chosen_by_kind_and_refuses_the_fields_of_another() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Objective)
    assert adapter.validate_python({"kind": "grpo", "ddof": 0}) == Grpo(ddof=0)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        adapter.validate_python({"kind": "grpo", "delta": 1})


@pytest.mark.parametrize("kind_class", [*OBJECTIVES.values(), *POLICY_LOSSES.values()], ids=lambda each: each.__name__)
def test_a_kind_is_frozen_documented_and_survives_json(kind_class: type[AdvantageEstimator | TokenLoss]) -> None:
    made = kind_class()  # type: ignore[call-arg]
    assert kind_class.model_validate_json(made.model_dump_json()) == made
    with pytest.raises(ValidationError, match="frozen"):
        made.kind = "other"
    assert "arXiv" in (sys.modules[kind_class.__module__].__doc__ or "")
    untitled = [name for name, field in kind_class.model_fields.items() if name != "kind" and not field.title]
    assert untitled == []  # the form shows the titles


def test_the_methods_load_without_torch() -> None:
    code = "import sys, agpo.objectives, agpo.objectives.losses; print({'torch', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
