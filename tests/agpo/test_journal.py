from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.artifacts import Files
from agpo.artifacts.lease import Lease, LeaseLost
from agpo.journal import Journal, Update, chain_policy, digest_step
from agpo.records import Rollouts, Verdicts, rollout_id


def make_rollouts(step: int, samples: range, policy: str = "base") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [rollout_id(step, "p", sample) for sample in samples],
            "problem_id": ["p"] * len(samples),
            "sample": list(samples),
            "prompt_ids": [[1, 2]] * len(samples),
            "response_ids": [[3, sample] for sample in samples],
            "logprobs": [[-0.5, -0.25]] * len(samples),
            "truncated": [False] * len(samples),
            "policy": [policy] * len(samples),
            "seed": [7] * len(samples),
        },
        schema=Rollouts.create_empty().schema,
    )


def make_verdicts(rollouts: pl.DataFrame, seconds: float = 0.1) -> pl.DataFrame:
    rows = len(rollouts)
    return pl.DataFrame(
        {
            "id": rollouts["id"],
            "verdict": ["correct", *["wrong"] * (rows - 1)],
            "cause": ["none", *["response"] * (rows - 1)],
            "reason": ["", *["mismatch"] * (rows - 1)],
            "extracted": [None] * rows,
            "seconds": [seconds] * rows,
            "verifier": ["countdown"] * rows,
            "version": [1] * rows,
        },
        schema=Verdicts.create_empty().schema,
    )


@pytest.fixture(params=["folder", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(tmp_path / "journal" if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def journal(files: Files) -> Iterator[Journal]:
    with Lease(files, "lease") as lease:
        yield Journal(files, lease)


def end_step(journal: Journal, step: int, policy: str, refused: str | None = None) -> Update:
    return journal.write_update(step, policy, refused, {"rollout/accuracy": 0.5}, f"outcome {step}")


def test_what_is_appended_is_read_back_in_order(journal: Journal) -> None:
    chunks = [make_rollouts(0, range(4)), make_rollouts(0, range(4, 6))]
    for index in (1, 0):
        journal.write_chunk(0, index, chunks[index])
    verdicts = make_verdicts(pl.concat(chunks))
    journal.write_verdicts(0, verdicts)
    first = end_step(journal, 0, "base")
    second = end_step(journal, 1, first.policy, "loss is nan")

    reader = Journal(journal.files)
    assert reader.read_chunk(0, 1).equals(chunks[1])  # type: ignore[union-attr]
    assert reader.read_rollouts(0).equals(pl.concat(chunks))
    assert reader.read_verdicts(0).equals(verdicts)  # type: ignore[union-attr]
    assert list(reader.updates()) == [first, second]
    assert list(reader.updates(first=1)) == [second]
    assert (second.policy_before, second.refused) == (first.policy, "loss is nan")


def test_what_is_not_there_is_none(journal: Journal) -> None:
    assert journal.read_chunk(0, 0) is None
    assert journal.read_rollouts(0).is_empty()
    assert journal.read_verdicts(0) is None
    assert journal.read_update(0) is None
    assert list(journal.updates()) == []
    assert journal.checkpoints() == []


def test_replay_ends_before_a_step_that_is_not_finished(journal: Journal) -> None:
    end_step(journal, 0, "base")
    journal.write_chunk(1, 0, make_rollouts(1, range(2)))
    end_step(journal, 2, "of a later step")
    assert [update.step for update in journal.updates()] == [0]


def test_a_policy_is_the_chain_of_what_its_updates_were_computed_from() -> None:
    rollouts = make_rollouts(0, range(4))
    verdicts = make_verdicts(rollouts)
    outcome = digest_step(rollouts, verdicts)
    assert outcome == digest_step(rollouts, make_verdicts(rollouts, seconds=9.0))
    flipped = verdicts.with_columns(verdict=pl.lit("wrong").cast(verdicts["verdict"].dtype))
    longer = rollouts.with_columns(truncated=~pl.col("truncated"))
    keys = [
        chain_policy("base", outcome, None),
        chain_policy("base", outcome, "loss is nan"),
        chain_policy("other", outcome, None),
        chain_policy("base", digest_step(rollouts, flipped), None),
        chain_policy("base", digest_step(longer, verdicts), None),
        chain_policy("base", digest_step(make_rollouts(0, range(1, 5)), verdicts), None),
    ]
    assert len(set(keys)) == len(keys)
    assert chain_policy("base", outcome, "gradient norm is inf") == keys[1]  # a reason may hold rounded numbers


@given(st.dictionaries(st.text(max_size=20), st.floats(), max_size=5), st.none() | st.text(max_size=20))
def test_an_update_survives_its_file(metrics: dict[str, float], refused: str | None) -> None:
    update = Update(step=3, policy_before="a", policy="b", refused=refused, metrics=metrics, time_ms=1)
    read = Update.model_validate_json(update.model_dump_json())
    assert read.metrics.keys() == metrics.keys()
    for name, value in metrics.items():
        assert read.metrics[name] == value or (math.isnan(value) and math.isnan(read.metrics[name]))
    assert read.model_copy(update={"metrics": {}}) == update.model_copy(update={"metrics": {}})


def test_a_run_is_described_once(journal: Journal) -> None:
    facts = {"key": "k", "settings": {"learner": {"rate": 0.1}}, "base": "b"}
    journal.describe_run(facts)
    journal.describe_run(dict(facts))
    assert Journal(journal.files).read_run() == facts


def test_another_run_under_the_same_key_is_an_error_that_names_the_difference(journal: Journal) -> None:
    journal.describe_run({"key": "k", "base": "b", "problems": "p"})
    with pytest.raises(ValueError, match=r"run\.json describes another run; it differs in base, machine$"):
        journal.describe_run({"key": "k", "base": "c", "problems": "p", "machine": "cpu"})
    assert journal.read_run()["base"] == "b"


WRITES: dict[str, Any] = {
    "describe_run": lambda journal, folder: journal.describe_run({"key": "k"}),
    "write_chunk": lambda journal, folder: journal.write_chunk(0, 0, make_rollouts(0, range(2))),
    "write_verdicts": lambda journal, folder: journal.write_verdicts(0, make_verdicts(make_rollouts(0, range(2)))),
    "write_update": lambda journal, folder: end_step(journal, 0, "base"),
    "save_checkpoint": lambda journal, folder: journal.save_checkpoint(2, "key", folder),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "optimizer.safetensors"):
        (folder / name).write_text(f"the {name}")
    return folder


@pytest.mark.parametrize("write", WRITES)
def test_a_reader_cannot_write(write: str, files: Files, folder: Path) -> None:
    with pytest.raises(PermissionError, match="open for reading only"):
        WRITES[write](Journal(files), folder)
    assert files.names() == []


@pytest.mark.parametrize("write", WRITES)
def test_the_lease_is_checked_before_each_append(write: str, journal: Journal, folder: Path) -> None:
    assert journal.lease is not None
    held = journal.files.names()
    journal.lease.release()
    with pytest.raises(LeaseLost):
        WRITES[write](journal, folder)
    assert journal.files.names() == held


def test_an_append_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    with Lease(files, "lease") as lease:
        journal = Journal(files, lease)
        before = files.names()

        def fail(*_: object) -> None:
            raise OSError("the power is gone")

        with monkeypatch.context() as patch:
            patch.setattr("agpo.artifacts.local.os.replace", fail)  # the last thing before the file is there
            for write in ("write_chunk", "write_verdicts", "write_update"):
                with pytest.raises(OSError, match="power"):
                    WRITES[write](journal, tmp_path)
        assert files.names() == before
        assert journal.read_chunk(0, 0) is None
        assert journal.read_update(0) is None


def test_a_checkpoint_is_a_folder_and_its_policy(journal: Journal, folder: Path) -> None:
    journal.save_checkpoint(2, "key of 2", folder)
    journal.save_checkpoint(10, "key of 10", folder)
    assert journal.checkpoints() == [2, 10]
    with journal.open_checkpoint(10) as (policy, found):
        assert policy == "key of 10"
        assert {file.name: file.read_bytes() for file in found.iterdir()} == {
            file.name: file.read_bytes() for file in folder.iterdir()
        }


def test_a_copy_of_a_checkpoint_is_gone_after_its_block(tmp_path: Path, folder: Path) -> None:
    files = Files(f"memory://{uuid.uuid4().hex}")
    with Lease(files, "lease") as lease:
        journal = Journal(files, lease)
        journal.save_checkpoint(2, "key", folder)
    with Journal(files).open_checkpoint(2) as (_, found):
        assert found.is_dir()
    assert not found.exists()


@pytest.mark.parametrize("done", range(4))
def test_a_checkpoint_without_its_pointer_does_not_exist(
    done: int, journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after ``done`` of the folder's three files, and saved again."""
    journal.save_checkpoint(2, "key of 2", folder)
    copied: list[str] = []
    copy = Files.copy

    def copy_some(self: Files, source: Path, name: str, *, link: bool = False) -> None:
        if len(copied) == done:
            raise KeyboardInterrupt
        copied.append(name)
        copy(self, source, name, link=link)

    def write_nothing(self: Files, name: str, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Files, "copy", copy_some)
        patch.setattr(Files, "write", write_nothing)
        with pytest.raises(KeyboardInterrupt):
            journal.save_checkpoint(4, "key of 4", folder)
    assert len(copied) == done
    assert Journal(journal.files).checkpoints() == [2]
    journal.save_checkpoint(4, "key of 4", folder)
    assert journal.checkpoints() == [2, 4]
    with journal.open_checkpoint(4) as (policy, found):
        assert policy == "key of 4"
        assert len(list(found.iterdir())) == 3


def test_the_log_is_readable_by_other_programs(journal: Journal, tmp_path: Path) -> None:
    journal.write_chunk(12, 0, make_rollouts(12, range(2)))
    end_step(journal, 12, "base")
    names = [name for name in journal.files.names() if not name.startswith("lease/")]
    assert names == ["steps/00000012/rollouts-0000.parquet", "steps/00000012/update.json"]
    assert json.loads(journal.files.read(names[1]))["step"] == 12
    journal.files.download(names[0], tmp_path / "chunk.parquet")
    assert pl.read_parquet(tmp_path / "chunk.parquet")["id"].to_list() == ["12/p/0", "12/p/1"]
