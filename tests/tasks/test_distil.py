"""The student's tasks on a real registry: whom a student must beat, and what a decision does, night after night."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agpo.artifacts import ArtifactRef
from agpo.relevance import Labelled, find_scheme
from agpo.settings import StudentJudging
from agpo.student.gate import decide
from tasks import distil
from tasks.student_registry import StudentRegistry
from tasks.tracking import RunRef
from tests.agpo.student.tiny_student import make_values, write_student

find_champion = distil.find_student_champion.__wrapped__  # type: ignore[attr-defined]
promote = distil.promote_student.__wrapped__  # type: ignore[attr-defined]


class Folders:
    """A store of published folders, by key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch(self, ref: ArtifactRef) -> Path:
        return self.root / ref.key


@pytest.fixture
def pipeline(run: RunRef, tmp_path: Path) -> Any:
    return SimpleNamespace(parent=run, run=SimpleNamespace(family="shop"), store=Folders(tmp_path))


@pytest.fixture
def registry(mlflow_uri: str) -> StudentRegistry:
    return StudentRegistry(mlflow_uri, "shop")


def reference(kind: str, key: str) -> ArtifactRef:
    return ArtifactRef(uri=f"s3://b/{kind}/{key}", key=key, sha256="cd" * 32, kind=kind, rows=0, bytes=1)


def make_student(root: Path, key: str) -> ArtifactRef:
    write_student(root / key, make_values(find_scheme("esci4")))
    return reference("student", key)


def make_decision(root: Path, key: str, right: int) -> ArtifactRef:
    """A decision on a student that has so many of 40 queries right, against a champion with 20."""
    scheme, queries = find_scheme("binary"), [f"q{row}" for row in range(40)]
    gold = ["R", "I"] * 20
    wrong = ["I", "R"] * 20
    labelled = {
        name: Labelled(scheme, gold, gold[:count] + wrong[count:], queries)
        for name, count in (("student", right), ("champion", 20))
    }
    found = decide(labelled, [None] * 40, StudentJudging(resamples=200), seed=0)
    (root / key).mkdir()
    (root / key / "decision.json").write_text(found.model_dump_json())
    (root / key / "card.md").write_text(f"# {key}")
    return reference("student_decision", key)


def test_a_student_goes_through_the_gate_night_after_night(
    pipeline: Any, registry: StudentRegistry, tmp_path: Path
) -> None:
    first, second, third = (make_student(tmp_path, key) for key in ("first", "second", "third"))
    good, bad, open_ = (make_decision(tmp_path, key, right) for key, right in (("good", 38), ("bad", 2), ("open", 20)))

    assert find_champion(pipeline, first) is None
    assert promote(pipeline, first, good) == "promote"
    assert find_champion(pipeline, first) is None  # again: as the night found it
    assert find_champion(pipeline, second) == first

    assert promote(pipeline, second, bad) == "reject"
    assert find_champion(pipeline, third) == first
    assert promote(pipeline, third, open_) == "inconclusive"
    aliases = {name: registry.version(name) for name in ("champion", "challenger", "previous")}
    assert aliases == {"champion": 1, "challenger": 3, "previous": None}

    better = make_decision(tmp_path, "better", 40)
    assert promote(pipeline, third, better) == "promote"
    assert promote(pipeline, first, good) == "promote"  # a repeated night: its decision has taken effect before
    aliases = {name: registry.version(name) for name in ("champion", "challenger", "previous")}
    assert aliases == {"champion": 3, "challenger": None, "previous": 1}
    assert find_champion(pipeline, third) == first


def test_a_version_has_its_card_and_evidence(pipeline: Any, registry: StudentRegistry, tmp_path: Path) -> None:
    promote(pipeline, make_student(tmp_path, "first"), make_decision(tmp_path, "good", 38))
    found = registry.client.get_model_version(registry.name, "1")
    assert found.description == "# good"
    assert found.tags["evidence.outcome"] == found.tags["gate.outcome"] == "promote"
    assert found.tags["evidence.reference"] == "champion"
    assert found.tags["evidence.decision"] == "s3://b/student_decision/good"
    assert 0 < float(found.tags["evidence.ahead.lower"]) < float(found.tags["evidence.ahead.value"])
