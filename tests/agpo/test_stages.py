from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agpo.artifacts import Store
from agpo.settings import Settings
from agpo.stages import STAGES, Cost, Machine, Stage, StageRun, Work

MACHINE = Machine("cpu", 1)


class Inner(Settings):
    path: str = "here"
    size: int = 1


class Chosen(Settings):
    power: int = 2
    workers: int = 4
    inner: Inner = Inner()


def raise_to_power(settings: Chosen, work: Work) -> dict[str, Any]:
    """A stage: numbers to their power. It fails as long as the file ``fail`` lies beside the store."""
    numbers = [(path / "numbers.txt").read_text().split() for path in work.inputs.values()] or [["1", "2", "3"]]
    work.partial.write("shard", b"done")
    (work.out / "numbers.txt").write_text(" ".join(str(int(number) ** settings.power) for number in numbers[0]))
    if Path(settings.inner.path, "fail").exists():
        raise RuntimeError("half way")
    return {"rows": len(numbers[0]), "metrics": {"numbers/seed": work.seed}}


POWERS = Stage("powers", 1, "numbers", f"{__name__}:raise_to_power", computes=False)
RUN = StageRun(POWERS, Chosen(), inputs={}, seed=0, machine=MACHINE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class TestKey:
    @pytest.mark.parametrize(
        "change",
        [
            {"stage": replace(POWERS, name="roots")},
            {"stage": replace(POWERS, version=2)},
            {"stage": replace(POWERS, computes=True)},
            {"settings": Chosen(power=3)},
            {"settings": Chosen(inner=Inner(size=2))},
            {"inputs": {"numbers": "a" * 64}},
            {"sources": {"file": "b" * 64}},
            {"seed": 1},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_changes_with(self, change: dict[str, Any]) -> None:
        assert replace(RUN, **change).key != RUN.key

    def test_names_its_inputs(self) -> None:
        assert replace(RUN, inputs={"a": "k"}).key != replace(RUN, inputs={"b": "k"}).key

    @pytest.mark.parametrize("machine", [Machine("cuda", 1), Machine("cpu", 2)])
    def test_changes_with_the_machine_only_where_the_stage_computes(self, machine: Machine) -> None:
        computing = replace(RUN, stage=replace(POWERS, computes=True))
        assert replace(computing, machine=machine).key != computing.key
        assert replace(RUN, machine=machine).key == RUN.key

    def test_does_not_change_with_what_only_says_where_or_how_fast(self) -> None:
        ignored = replace(RUN, ignored=frozenset({"workers", "inner.path"}))
        moved = replace(ignored, settings=Chosen(workers=9, inner=Inner(path="there")))
        assert moved.key == ignored.key != RUN.key
        assert ignored.matter == {"power": 2, "inner": {"size": 1}}
        assert replace(ignored, settings=Chosen(inner=Inner(size=2))).key != ignored.key

    def test_may_ignore_what_another_kind_of_setting_has(self) -> None:
        assert replace(RUN, ignored=frozenset({"inner.revision", "dataset"})).key == RUN.key

    def test_is_the_same_in_every_process(self) -> None:
        code = f"from {__name__} import RUN; print(RUN.key)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == RUN.key


class TestRun:
    def test_a_second_run_finds_what_the_first_made(self, store: Store) -> None:
        assert RUN.find(store) is None
        made = RUN.run(store, {}, {"run": "first"})
        found = RUN.run(store, {}, {"run": "second"})
        assert not made.found
        assert found.found
        assert found.ref == made.ref
        assert found.summary == made.summary
        assert (store.fetch(made.ref) / "numbers.txt").read_text() == "1 4 9"
        assert store.manifest(made.ref).producer == {"run": "first"}

    def test_hands_one_stages_artifact_to_the_next(self, store: Store) -> None:
        first = RUN.run(store, {})
        second = replace(RUN, inputs={"numbers": first.ref.key}, seed=5).run(store, {"numbers": first.ref})
        assert (store.fetch(second.ref) / "numbers.txt").read_text() == "1 16 81"
        manifest = store.manifest(second.ref)
        assert manifest.inputs == {"numbers": first.ref}
        assert manifest.settings == RUN.matter
        assert (manifest.stage, manifest.version, manifest.rows) == ("powers", 1, 3)
        assert second.summary["metrics"] == {"numbers/seed": 5}
        assert second.summary["cost"].keys() == {"seconds", "cpu_seconds", "peak_memory_mib"}

    @pytest.mark.parametrize("local", [True, False])
    def test_a_function_that_fails_publishes_nothing_and_keeps_its_shards(self, local: bool, tmp_path: Path) -> None:
        store = Store(tmp_path / "store" if local else f"memory://{tmp_path.name}", copies=tmp_path / "copies")
        (tmp_path / "fail").touch()
        run = replace(RUN, settings=Chosen(inner=Inner(path=str(tmp_path))))
        with pytest.raises(RuntimeError, match="half way"):
            run.run(store, {})
        partial = store.partial("numbers", run.key)
        assert run.find(store) is None
        assert partial.read("shard") == b"done"
        (tmp_path / "fail").unlink()
        made = run.run(store, {})
        assert [path.name for path in store.fetch(made.ref).iterdir()] == ["numbers.txt"]
        assert partial.names() == []

    def test_what_a_failed_attempt_wrote_is_not_published(self, tmp_path: Path, store: Store) -> None:
        (tmp_path / "fail").touch()
        run = replace(RUN, settings=Chosen(inner=Inner(path=str(tmp_path))))
        with pytest.raises(RuntimeError):
            run.run(store, {})
        leftover = store.partial("numbers", run.key).local_path("out")
        (leftover / "leftover.txt").touch()
        (tmp_path / "fail").unlink()
        assert [path.name for path in store.fetch(run.run(store, {}).ref).iterdir()] == ["numbers.txt"]

    def test_a_computing_stage_runs_on_its_threads(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen: list[int] = []
        monkeypatch.setattr(torch, "set_num_threads", chosen.append)
        replace(RUN, machine=Machine("cpu", 3)).run(store, {})
        assert chosen == []
        replace(RUN, stage=replace(POWERS, computes=True), machine=Machine("cpu", 3)).run(store, {})
        assert chosen == [3]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_names_a_function(stage: Stage) -> None:
    assert callable(stage.load())


def test_names_of_stages_differ() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)


def test_an_explicit_device_is_taken_as_it_is() -> None:
    assert Machine.resolve("cpu", 2) == Machine("cpu", 2)
    assert Machine.resolve("cuda", 1) == Machine("cuda", 1)
    assert Machine.resolve("auto", 1).device in ("cpu", "cuda")


def test_planning_needs_no_torch() -> None:
    code = "import sys, agpo.stages, agpo.recipe, agpo.progress; print({'torch', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


class TestCost:
    def test_counts_this_process_and_its_ended_children(self) -> None:
        cost = Cost()
        sum(number * number for number in range(300_000))
        own = cost.measure()
        subprocess.run([sys.executable, "-c", "sum(n * n for n in range(3_000_000))"], check=True)
        both = cost.measure()
        assert 0 < own["cpu_seconds"] < both["cpu_seconds"]
        assert both["cpu_seconds"] - own["cpu_seconds"] > 0.1
        assert both["seconds"] >= own["seconds"] > 0

    def test_knows_the_peak_memory(self) -> None:
        code = (
            "from agpo.stages import Cost\n"
            "before, block, after = Cost().measure(), b'1' * (64 << 20), Cost().measure()\n"
            "print(after['peak_memory_mib'] - before['peak_memory_mib'])"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert 60 < float(found.stdout) < 80
