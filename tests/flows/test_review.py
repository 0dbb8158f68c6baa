"""The review of answers that two verifiers read differently, by its commands."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from agpo.artifacts import Files
from agpo.artifacts.table import write_table
from agpo.records import Disagreements
from tests.flows.test_cli import invoke


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("AGPO_HOME", str(tmp_path))
    return Files(tmp_path / "store")


def disagree(store: Files) -> None:
    row = ("0/a/0", "a", "so 5 eggs", "5", "5 eggs", "wrong", "correct")
    table = pl.DataFrame([row], schema=Disagreements.create_empty().schema, orient="row")
    write_table(store, "journal/run/steps/00000000/disagreements.parquet", table, Disagreements)


def test_with_nothing_to_decide_an_export_says_so_and_writes_nothing(store: Files, tmp_path: Path) -> None:
    target = tmp_path / "answers.csv"
    found = invoke("review", "export", str(target))
    assert found.exit_code == 0
    assert found.output == (
        "Nothing to decide: no training run has answers that the audit reads differently; nothing was written\n"
    )
    assert not target.exists()
    disagree(store)  # the name is still free
    found = invoke("review", "export", str(target))
    assert found.exit_code == 0
    assert " ".join(found.output.split()).startswith("1 answers to decide are in")
    assert target.is_file()
