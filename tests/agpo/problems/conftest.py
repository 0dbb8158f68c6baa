from __future__ import annotations

from pathlib import Path

import pytest

from agpo.artifacts import Files
from agpo.stages import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    out = tmp_path / "out"
    out.mkdir()
    return Work(inputs={}, keys={}, out=out, partial=Files(tmp_path / "partial"), seed=0, device="cpu")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).resolve().parents[3] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data is not beside this checkout")
    return folder
