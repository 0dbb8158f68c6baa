from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests import stage_sources
from tests.stage_sources import Sources, digest_code, find_undecided, read_record, read_sources, write_record

ROOT = stage_sources.ROOT
MODULE = Path("agpo/objectives/agpo.py")
CODE = '''
"""Module."""

class Rate:
    """Class."""

    def of(self, count: int) -> float:
        """Function."""
        return f"{count}" + 'text'
'''


def test_code_changes_with_a_version_or_an_acknowledgement() -> None:
    recorded, present = read_record(), read_sources()
    undecided = find_undecided(recorded, present)
    assert not undecided, "\n".join(undecided)
    for name, (version, _) in present.items():
        if recorded[name].version != version:
            warnings.warn(f"stage {name}: record version {version}: python -m tests.stage_sources", stacklevel=1)


def test_a_stage_is_made_of_what_it_imports_by_whatever_way() -> None:
    modules = {name: sources.modules.keys() for name, sources in read_sources().items()}
    assert {"agpo.session", "agpo.learner.update", "agpo.rollout.sampler", "agpo.verify.math"} <= modules["train"]
    assert {"agpo.verify.symbolic", "agpo.verify.nursery"} <= modules["evaluate"]  # by name
    assert {"agpo.objectives.agpo", "agpo.objectives.losses.gspo"} <= modules["train"]  # discovered
    assert "agpo.learner.interpolate" in modules["interpolate"]
    assert not {"agpo.session", "agpo.objectives.agpo", "agpo.settings"} & modules["evaluate"]


class TestDigest:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"""Module."""', '"""Another."""'),
            ('"""Class."""', ""),
            ('        """Function."""\n', ""),
            ("'text'", '"text"'),
            ("(self, count: int)", "(\n        self,\n        count: int,\n    )"),
            ("        return", "        # why\n\n        return"),
        ],
    )
    def test_comments_docstrings_and_layout_do_not_count(self, old: str, new: str) -> None:
        assert old in CODE
        assert digest_code(CODE.replace(old, new)) == digest_code(CODE)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("'text'", "'Text'"),
            ("count: int", "count: float"),
            ("of(", "from_("),
            ("return", "yield"),
            ("class Rate:", "class Rate(float):"),
            ("    def of", "    async def of"),
        ],
    )
    def test_everything_else_counts(self, old: str, new: str) -> None:
        assert old in CODE
        assert digest_code(CODE.replace(old, new)) != digest_code(CODE)


KNOWN = {"train": Sources(1, {"agpo.a": "1", "agpo.b": "2"}), "judge": Sources(3, {"agpo.b": "2"})}


class TestUndecided:
    def present(self, **modules: str) -> dict[str, Sources]:
        return {"train": Sources(1, {f"agpo.{name}": digest for name, digest in modules.items()})}

    def test_nothing_is_said_of_what_is_as_recorded(self) -> None:
        assert find_undecided(KNOWN, KNOWN) == []

    @pytest.mark.parametrize(
        ("modules", "named"),
        [
            ({"a": "9", "b": "2"}, "agpo.a"),
            ({"a": "1"}, "agpo.b"),
            ({"a": "1", "b": "2", "c": "3"}, "agpo.c"),
            ({"a": "9", "b": "9"}, "agpo.a, agpo.b"),
        ],
    )
    def test_stage_and_modules_are_named(self, modules: dict[str, str], named: str) -> None:
        line, advice = find_undecided(KNOWN, self.present(**modules))
        assert line == f"stage train, version 1: changed since it was recorded: {named}"
        assert "raise its version in agpo/stages.py" in advice
        assert "python -m tests.stage_sources" in advice

    def test_another_version_decides(self) -> None:
        assert find_undecided(KNOWN, {"train": Sources(2, {"agpo.a": "9"})}) == []

    def test_a_stage_that_is_not_recorded_is_named(self) -> None:
        assert find_undecided(KNOWN, {"label": Sources(1, {"agpo.c": "3"})})[0].startswith("stage label")

    def test_a_record_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        write_record(KNOWN, tmp_path / "record.json")
        assert read_record(tmp_path / "record.json") == KNOWN


class TestCopy:
    """The command, in a copy of the code."""

    @pytest.fixture(autouse=True)
    def _copy(self, tmp_path: Path) -> None:
        self.root = tmp_path
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "agpo", tmp_path / "agpo", ignore=ignore)
        (tmp_path / "tests").mkdir()
        for name in ("__init__.py", "stage_sources.py"):
            shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
        write_record(read_sources(), tmp_path / "tests/stage_sources.json")

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.stage_sources", *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)

    def append(self, text: str) -> None:
        with (self.root / MODULE).open("a") as file:
            file.write(text)

    def test_a_change_of_code_is_refused_until_it_is_acknowledged(self) -> None:
        self.append("\nCHANGED = True\n")
        found = self.call("--check")
        assert found.returncode == 1
        first, _, advice = found.stderr.partition("\n")
        assert re.fullmatch(r"stage train, version \d+: changed since it was recorded: agpo\.objectives\.agpo", first)
        assert advice.startswith("Artifacts of such a stage would be found although other code made them.")
        assert self.call().returncode == 0
        assert self.call("--check").returncode == 0

    def test_a_change_of_code_with_another_version_is_accepted(self) -> None:
        self.append("\nCHANGED = True\n")
        stages = self.root / "agpo/stages.py"
        stages.write_text(re.sub(r'Stage\("train", \d+', 'Stage("train", 999', stages.read_text()))
        assert self.call("--check").returncode == 0

    def test_a_change_of_text_only_is_accepted(self) -> None:
        self.append("\n\n# A comment.\n")
        assert self.call("--check").returncode == 0
