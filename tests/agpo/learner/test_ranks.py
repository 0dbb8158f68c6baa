"""Two processes that train together, against one alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from agpo.learner.batch import Batch
from agpo.learner.ranks import Ranks
from tests.agpo.learner.rank_cases import CASES, COUNT, Result
from tests.agpo.learner.test_update import make

PATIENCE = 240  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ranks wrote."""
    found = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.agpo.learner.rank_cases", str(found)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(COUNT)]
    try:
        assert [process.wait(PATIENCE) for process in processes] == [0, 7]  # the last fault ends rank 1
    finally:
        for process in processes:
            process.kill()
    return found


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    return [
        (json.loads((folder / f"{rank}.json").read_text()), load_file(folder / f"{rank}.safetensors"))
        for rank in range(COUNT)
    ]


@pytest.fixture(scope="module")
def faults(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "0.faults.json").read_text())
    return found


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one(name: str, ranks: list[Result]) -> None:
    """Figures and gradients of an applied update; a refused one may end sooner on one rank."""
    facts, tensors = CASES[name](Ranks())
    for other, found in ranks:
        assert other[name]["refused"] == facts["refused"]
        assert other[name]["skipped"] == facts["skipped"]
        for refused, metrics, expected in zip(facts["refused"], other[name]["metrics"], facts["metrics"], strict=True):
            if refused is None:
                assert metrics == pytest.approx(expected, rel=1e-10, abs=1e-12)
        for part, tensor in tensors.items():
            if part.endswith("/gradient") and facts["refused"][-1] is not None:
                continue
            torch.testing.assert_close(found[f"{name}/{part}"], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_both_ranks_have_the_same_bytes(name: str, ranks: list[Result]) -> None:
    (facts, tensors), (others, found) = ranks
    assert json.dumps(facts[name]) == json.dumps(others[name])
    for part in tensors:
        if part.startswith(f"{name}/") and not part.endswith("/gradient"):
            assert torch.equal(tensors[part], found[part]), part


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loss of the first row", "loss is nan, as in rollout 0/a/0 (step 1, 9 rows)"),
        ("loss of the second row", "loss is nan, as in rollout 0/a/1 (step 1, 9 rows)"),
    ],
)
def test_a_row_that_only_one_rank_has_read_is_named_by_both(name: str, reason: str, ranks: list[Result]) -> None:
    assert [facts[name]["refused"] for facts, _ in ranks] == [[None, reason]] * COUNT
    batch = make()
    owners = [[row in _of(rank).share(batch, np.arange(len(batch))) for rank in range(COUNT)] for row in (0, 1)]
    assert owners in ([[True, False], [False, True]], [[False, True], [True, False]])


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("weights", "ValueError: rank 1 of 2 differs from rank 0 in the weights; all ranks need"),
        ("batch", "ValueError: rank 1 of 2 differs from rank 0 in the batch; all ranks need"),
        ("settings", "ValueError: rank 1 of 2 differs from rank 0 in the settings; all ranks need"),
        ("hang", "RankLost: rank 0 of 2 lost another one while they exchanged decisions: it ended or did not answer"),
        ("death", "RankLost: rank 0 of 2 lost another one while they exchanged decisions: it ended or did not answer"),
    ],
)
def test_a_fault_is_a_clear_error_on_the_other_rank(name: str, start: str, faults: dict[str, str]) -> None:
    assert faults[name].startswith(start)


def _of(rank: int, count: int = COUNT) -> Ranks:
    """A rank without its group: for what needs no other."""
    found = Ranks()
    found.rank, found.count = rank, count
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4, 20])
def test_every_row_has_one_rank_and_tokens_are_balanced(count: int) -> None:
    batch = make()
    rows = np.array([8, 0, 1, 5, 4, 2])
    parts = [_of(rank, count).share(batch, rows) for rank in range(count)]
    assert sorted(np.concatenate(parts)) == sorted(rows)
    for part in parts:
        assert part.tolist() == [row for row in rows if row in part]
    loads = [_tokens(batch, part) for part in parts]
    assert max(loads) <= max(_tokens(batch, rows) / count * 4 / 3, max(_tokens(batch, rows[[i]]) for i in range(6)))


def _tokens(batch: Batch, rows: np.ndarray) -> int:
    return sum(len(batch.prompts[row]) + len(batch.responses[row]) for row in rows)
