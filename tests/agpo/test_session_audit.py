"""Math answers of a training run are read by a second verifier, and people's decisions count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from agpo.artifacts.table import read_table, write_table
from agpo.records import Annotations, Disagreements
from agpo.session import Session
from agpo.verify import rollouts as verification
from agpo.verify.plain import agree_plainly
from tests.agpo.session_start import RUN, Start, open_session, start, store, take_step

__all__ = ["open_session", "start", "store"]


def as_math(session: Session) -> Session:
    """The same problems, their answers read as numbers."""
    rounds = session._rounds
    rounds._training = rounds._training.with_columns(verifier=pl.lit("math"), gold=pl.lit("7"))
    return session


def test_the_journal_keeps_what_the_readings_disagree_on(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agpo.verify.audit.agree_plainly", lambda response, gold: not agree_plainly(response, gold))
    session = as_math(open_session())
    take_step(session, 0)
    update = session.journal.read_update(0)
    assert update is not None
    assert update.metrics["verify/audited"] == 16
    assert update.metrics["verify/disagreement_rate"] == 1
    kept = read_table(session.journal.files, "steps/00000000/disagreements.parquet", Disagreements)
    assert kept.height == 16


def test_a_run_without_math_has_no_audit(open_session: Callable[..., Session]) -> None:
    session = open_session()
    take_step(session, 0)
    update = session.journal.read_update(0)
    assert update is not None
    assert not [name for name in update.metrics if "audit" in name]
    assert "disagreements" not in " ".join(session.journal.files.names())


def test_annotations_are_part_of_the_key_by_their_content(
    open_session: Callable[..., Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    decided = pl.DataFrame(
        [{"problem_id": "x", "gold": "7", "extracted": "8", "decision": "correct"}],
        schema=Annotations.create_empty().schema,
    )
    keys = []
    for name in ("first.parquet", "second.parquet"):
        write_table(tmp_path, name, decided, Annotations)
        verify = RUN.verify.model_copy(update={"annotations": str(tmp_path / name)})
        keys.append(open_session(verify=verify).key)
    assert keys[0] == keys[1] != open_session().key
    seen = []
    verify_all = verification.verify_rollouts

    def note(*arguments: object, annotations: pl.DataFrame | None, **options: object) -> pl.DataFrame:
        seen.append(annotations)
        return verify_all(*arguments, annotations=annotations, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(verification, "verify_rollouts", note)
    session = open_session(verify=RUN.verify.model_copy(update={"annotations": str(tmp_path / "first.parquet")}))
    take_step(session, 0)
    assert seen[0] is not None
    assert seen[0].equals(decided)
