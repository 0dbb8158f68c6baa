from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agpo.objectives import Grpo
from agpo.recipe import Recipe
from agpo.settings import NightlyRun, TrainRun

PROBLEMS, BASE, TRAINED, POLICY = (hashlib.sha256(name.encode()).hexdigest() for name in "pbtx")


def recipe(**changes: Any) -> Recipe:
    return Recipe(NightlyRun.model_validate(changes))


def keys(of: Recipe) -> dict[str, str]:
    """Every key of a run whose inputs stay as they are."""
    return {
        "prepare": of.prepare().key,
        "warm_start": of.warm_start(PROBLEMS).key,
        "train": of.train_key(PROBLEMS, BASE),
        "trained": of.trained_key(PROBLEMS, BASE),
        "interpolate": of.interpolate(BASE, TRAINED, 0.5).key,
        "evaluate": of.evaluate(POLICY, PROBLEMS, "selection").key,
        "select": of.select({"base": BASE, "weight_1.0": TRAINED}).key,
        "judge": of.judge({"base": BASE, "candidate": TRAINED}).key,
    }


COMPUTING = {"warm_start", "train", "trained", "interpolate", "evaluate"}
EVERYTHING = COMPUTING | {"prepare", "select", "judge"}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"problems": {"source": "countdown", "train": 99}}, {"prepare"}),
        ({"base": {"kind": "scratch", "training": {"steps": 7}}}, {"warm_start"}),
        ({"rollout": {"problems": 3}}, {"train", "trained"}),
        ({"rollout": {"tokens": 9}}, {"warm_start", "train", "trained", "evaluate"}),
        ({"rollout": {"chat_template": "chatml-v1"}}, {"warm_start", "train", "trained", "evaluate"}),
        ({"verify": {"timeout": 1.0}}, {"train", "trained", "evaluate"}),
        ({"objective": {"kind": "grpo"}}, {"train", "trained"}),
        ({"loss": {"kl": 0.3}}, {"train", "trained"}),
        ({"learner": {"rate": 0.1}}, {"train", "trained"}),
        ({"interpolate": {"margin": 0.01}}, {"select"}),
        ({"evaluate": {"samples": 128}}, {"evaluate"}),
        ({"evaluate": {"ks": [1, 2]}}, {"select", "judge"}),
        ({"promote": {"confidence": 0.9}}, {"judge"}),
        ({"seed": 1}, EVERYTHING - {"interpolate"}),
        ({"device": "cuda"}, COMPUTING),
        ({"threads": 2}, COMPUTING),
        ({"steps": 9}, {"trained"}),  # a longer run continues a shorter one
        ({"verify": {"workers": 1, "memory": 512, "largest_unverifiable_share": 0.5}}, set()),
        ({"learner": {"refusals": 9}}, set()),
        ({"checkpoint_every": 3, "step_deadline": 9.0}, set()),
        ({"family": "other"}, set()),
        ({"compare": [{"kind": "grpo"}]}, set()),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_setting_changes_the_keys_of_what_depends_on_it(change: dict[str, Any], changed: set[str]) -> None:
    before, after = keys(recipe(device="cpu")), keys(recipe(**{"device": "cpu", **change}))
    assert {name for name in before if before[name] != after[name]} == changed


def test_keys_follow_the_inputs() -> None:
    run = recipe()
    pairs = [
        (run.warm_start(PROBLEMS).key, run.warm_start(POLICY).key),
        (run.train_key(PROBLEMS, BASE), run.train_key(POLICY, BASE)),
        (run.train_key(PROBLEMS, BASE), run.train_key(PROBLEMS, POLICY)),
        (run.interpolate(BASE, TRAINED, 0.5).key, run.interpolate(POLICY, TRAINED, 0.5).key),
        (run.interpolate(BASE, TRAINED, 0.5).key, run.interpolate(BASE, TRAINED, 0.7).key),
        (run.evaluate(POLICY, PROBLEMS, "selection").key, run.evaluate(BASE, PROBLEMS, "selection").key),
        (run.evaluate(POLICY, PROBLEMS, "selection").key, run.evaluate(POLICY, PROBLEMS, "confirmation").key),
        (run.select({"base": BASE}).key, run.select({"base": POLICY}).key),
        (run.judge({"base": BASE}).key, run.judge({"base": POLICY}).key),
    ]
    assert all(one != other for one, other in pairs)


def test_keys_are_digests() -> None:
    found = list(keys(recipe()).values())
    assert all(len(key) == 64 and int(key, 16) for key in found)
    assert len(set(found)) == len(found)


class TestFolderBase:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "model").mkdir()
        for name in ("config.json", "model.safetensors"):
            (tmp_path / "model" / name).write_text(name)
        return tmp_path / "model"

    def key(self, folder: Path, **training: Any) -> str:
        base = {"kind": "folder", "path": str(folder), **({"training": training} if training else {})}
        return recipe(base=base).warm_start(PROBLEMS).key

    def test_enters_by_its_content_wherever_it_lies(self, folder: Path) -> None:
        before = self.key(folder)
        moved = folder.rename(folder.with_name("moved"))
        assert self.key(moved) == before
        (moved / "model.safetensors").write_text("other weights")
        assert self.key(moved) != before

    def test_its_training_is_in_the_key(self, folder: Path) -> None:
        assert len({self.key(folder), self.key(folder, steps=5), self.key(folder, steps=6)}) == 3

    def test_a_missing_one_is_named_before_anything_starts(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"^base\.path: .*absent is not a Hugging Face model folder"):
            self.key(tmp_path / "absent")


class TestHubBase:
    def key(self, revision: str, model: str = "owner/model") -> str:
        return recipe(base={"kind": "hub", "model": model, "revision": revision}).warm_start(PROBLEMS).key

    def test_enters_by_the_commit_of_its_revision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        commits = {"main": "0" * 40, "v1": "1" * 40}
        api = SimpleNamespace(model_info=lambda _, revision: SimpleNamespace(sha=commits[revision]))
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        assert self.key("main") == self.key("0" * 40) != self.key("v1")
        before = self.key("main")
        commits["main"] = "2" * 40
        assert self.key("main") != before
        assert self.key("v1") != self.key("v1", "owner/other")

    def test_without_network_only_a_commit_has_a_key(self) -> None:
        assert self.key("0" * 40)
        with pytest.raises(ConnectionError, match=r"base\.model = 'owner/model'"):
            self.key("main")


def test_problems_of_a_table_enter_by_content(tmp_path: Path) -> None:
    def key(path: Path) -> str:
        return (
            recipe(problems={"source": "table", "path": str(path)}, base={"kind": "folder", "path": "x"}).prepare().key
        )

    first, second = tmp_path / "rows.jsonl", tmp_path / "below" / "rows.jsonl"
    second.parent.mkdir()
    for path in (first, second):
        path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    assert key(first) == key(second)
    second.write_text('{"question": "1 + 1?", "answer": "3"}\n')
    assert key(first) != key(second)


def test_with_another_objective_everything_else_stays() -> None:
    other = recipe().with_objective(Grpo())
    assert other.run.objective == Grpo()
    before, after = keys(recipe()), keys(other)
    assert {name for name in before if before[name] != after[name]} == {"train", "trained"}


def test_evaluation_needs_a_nightly_run() -> None:
    with pytest.raises(TypeError, match="give a NightlyRun"):
        Recipe(TrainRun()).evaluate(POLICY, PROBLEMS, "selection")
