"""Versions and aliases in a real SQLite registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from agpo.artifacts import ArtifactRef
from tasks.registry import Registry
from tasks.tracking import RunRef


@pytest.fixture
def registry(mlflow_uri: str) -> Registry:
    return Registry(mlflow_uri, "countdown")


def policy(name: str) -> ArtifactRef:
    return ArtifactRef(uri=f"s3://b/policy/{name}", key=name, sha256="ab" * 32, kind="policy", rows=0, bytes=9_999)


def aliases(registry: Registry) -> dict[str, int]:
    found = {name: registry.version(name) for name in ("base", "champion", "challenger", "previous")}
    return {name: version for name, version in found.items() if version is not None}


def test_nothing_is_registered_at_first(registry: Registry) -> None:
    assert registry.champion() is None
    assert registry.lookup("base") is None


def test_a_version_points_to_its_policy_with_evidence_and_card(registry: Registry, run: RunRef) -> None:
    evidence = {"outcome": "promote", "hard": {"pass_at_64": [0.97, 0.95, 0.99]}}
    version = registry.register(policy("a"), run, "candidate", evidence, "# Card")
    found = registry.client.get_model_version("agpo-policy-countdown", str(version))
    assert found.run_id == run.run_id
    assert found.description == "# Card"
    assert found.tags["evidence.outcome"] == "promote"
    assert found.tags["evidence.hard.pass_at_64"] == "[0.97, 0.95, 0.99]"
    registry.mark_challenger(version)
    looked_up = registry.lookup("challenger")
    assert looked_up is not None
    assert (looked_up.version, looked_up.role, looked_up.policy) == (version, "candidate", policy("a"))


def test_the_registry_holds_no_files(registry: Registry, run: RunRef, tmp_path: Path) -> None:
    registry.register(policy("a"), run, "candidate")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["mlflow.db"]


def test_a_policy_is_registered_once_with_its_latest_evidence(registry: Registry, run: RunRef) -> None:
    first = registry.register(policy("a"), run, "candidate", {"outcome": "reject"}, "old")
    assert registry.register(policy("b"), run, "candidate") != first
    assert registry.register(policy("a"), run, "candidate", {"outcome": "promote"}, "card") == first
    found = registry.client.get_model_version(registry.name, str(first))
    assert (found.tags["evidence.outcome"], found.description) == ("promote", "card")


def test_the_first_base_is_the_first_champion(registry: Registry, run: RunRef) -> None:
    for _ in range(2):
        assert registry.ensure_base(policy("base"), run) == 1
    assert aliases(registry) == {"base": 1, "champion": 1}
    champion = registry.champion()
    assert champion is not None
    assert (champion.role, champion.policy) == ("base", policy("base"))


def test_a_later_base_leaves_the_champion_and_an_older_one_does_not_come_back(registry: Registry, run: RunRef) -> None:
    registry.ensure_base(policy("base"), run)
    registry.ensure_base(policy("larger base"), run)
    registry.ensure_base(policy("base"), run)
    assert aliases(registry) == {"base": 2, "champion": 1}


def test_a_base_stays_a_base_when_it_is_a_candidate_too(registry: Registry, run: RunRef) -> None:
    base = registry.ensure_base(policy("base"), run, "the base's card")
    assert registry.register(policy("base"), run, "candidate", {"outcome": "inconclusive"}, "another") == base
    registry.act_on("inconclusive", base, "decision")
    assert aliases(registry) == {"base": 1, "champion": 1}
    found = registry.lookup("base")
    assert found is not None
    assert found.role == "base"
    assert registry.client.get_model_version(registry.name, str(base)).description == "the base's card"


def test_a_champion_may_become_the_base(registry: Registry, run: RunRef) -> None:
    registry.ensure_base(policy("base"), run)
    candidate = registry.register(policy("a"), run, "candidate")
    registry.promote(candidate)
    assert registry.ensure_base(policy("a"), run) == candidate
    assert aliases(registry) == {"base": 2, "champion": 2, "previous": 1}


def test_promotion_remembers_the_champion_before(registry: Registry, run: RunRef) -> None:
    registry.ensure_base(policy("base"), run)
    first = registry.register(policy("a"), run, "candidate")
    registry.mark_challenger(first)
    for _ in range(2):
        registry.promote(first)
    assert aliases(registry) == {"base": 1, "champion": 2, "previous": 1}
    second = registry.register(policy("b"), run, "candidate")
    registry.promote(second)
    assert aliases(registry) == {"base": 1, "champion": 3, "previous": 2}


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("promote", {"base": 1, "champion": 2, "previous": 1}),
        ("inconclusive", {"base": 1, "champion": 1, "challenger": 2}),
        ("reject", {"base": 1, "champion": 1}),
    ],
)
def test_the_gate_decides(registry: Registry, run: RunRef, outcome: str, expected: dict[str, int]) -> None:
    registry.ensure_base(policy("base"), run)
    candidate = registry.register(policy("a"), run, "candidate")
    registry.mark_challenger(candidate)
    for _ in range(2):
        registry.act_on(outcome, candidate, "decision")  # type: ignore[arg-type]
    assert aliases(registry) == expected
    tags = registry.client.get_model_version(registry.name, str(candidate)).tags
    assert tags["gate.outcome"] == outcome


def test_rejecting_a_version_leaves_another_challenger(registry: Registry, run: RunRef) -> None:
    registry.ensure_base(policy("base"), run)
    waiting, other = (registry.register(policy(name), run, "candidate") for name in "ab")
    registry.act_on("inconclusive", waiting, "one")
    registry.act_on("reject", other, "two")
    assert registry.version("challenger") == waiting


def test_a_repeated_run_does_not_bring_an_old_champion_back(registry: Registry, run: RunRef) -> None:
    registry.ensure_base(policy("base"), run)
    old = registry.register(policy("a"), run, "candidate")
    registry.act_on("promote", old, "first night")
    recent = registry.register(policy("b"), run, "candidate")
    registry.act_on("promote", recent, "second night")
    registry.act_on("promote", old, "first night")
    assert registry.version("champion") == recent
    registry.act_on("promote", old, "other evidence")
    assert registry.version("champion") == old


@pytest.mark.parametrize("survived", [0, 1])
def test_a_kill_between_the_aliases_is_repaired_by_the_repeat(
    registry: Registry, run: RunRef, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    registry.ensure_base(policy("base"), run)
    candidate = registry.register(policy("a"), run, "candidate")
    registry.mark_challenger(candidate)
    point, pointed = registry._point, list[str]()

    def die_later(alias: str, version: int) -> None:
        if len(pointed) == survived:
            raise KeyboardInterrupt
        pointed.append(alias)
        point(alias, version)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(registry, "_point", die_later)
        registry.act_on("promote", candidate, "decision")
    registry.act_on("promote", candidate, "decision")
    assert aliases(registry) == {"base": 1, "champion": 2, "previous": 1}


def test_families_do_not_meet(mlflow_uri: str, registry: Registry, run: RunRef) -> None:
    shop = Registry(mlflow_uri, "shop")
    registry.ensure_base(policy("base"), run)
    shop.ensure_base(policy("base"), run)
    shop.promote(shop.register(policy("a"), run, "candidate"))
    assert aliases(registry) == {"base": 1, "champion": 1}
    assert aliases(shop) == {"base": 1, "champion": 2, "previous": 1}


def test_a_version_made_by_hand_is_named(registry: Registry, run: RunRef) -> None:
    registry.ensure_base(policy("base"), run)
    made = registry.client.create_model_version(registry.name, source=f"runs:/{run.run_id}/model", run_id=run.run_id)
    assert registry.register(policy("a"), run, "candidate") == int(made.version) + 1
    registry.promote(int(made.version))
    with pytest.raises(ValueError, match=r"agpo-policy-countdown version 2 \(champion\) has no tag checkpoint.key"):
        registry.champion()
