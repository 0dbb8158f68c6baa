from __future__ import annotations

from pathlib import Path

import pytest

from tests.agpo.student.labelled_shop import write_labels, write_problems


@pytest.fixture(scope="session")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_problems(tmp_path_factory.mktemp("shop") / "problems")


@pytest.fixture(scope="session")
def labels(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("votes") / "labels", problems)
