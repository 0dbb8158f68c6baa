"""What stops a run, and that it stays stopped when it is started again."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.artifacts import Files, Store
from agpo.artifacts.lease import LeaseHeld
from agpo.journal import Journal
from agpo.learner.update import Learner, Outcome
from agpo.session import RunStopped, Session
from tests.agpo.session_start import (
    RUN,
    Start,
    make_unverifiable,
    open_session,
    snapshot,
    start,
    store,
    take_step,
    train,
)
from tests.chaos.snapshot import read_files

__all__ = ["open_session", "start", "store"]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the learner refuse certain steps."""
    update = Learner.update

    def install(*steps: int) -> None:
        def refuse_some(self: Learner, batch: Any, step: int, guarded: bool = True) -> Outcome:
            return Outcome(f"loss is nan (step {step})", {}) if step in steps else update(self, batch, step, guarded)

        monkeypatch.setattr(Learner, "update", refuse_some)

    return install


def test_a_refused_update_is_journalled_and_refused_again_in_replay(
    start: Start, tmp_path: Path, refuse: Callable[..., None]
) -> None:
    refuse(1)
    whole = Session(RUN, Store(shutil.copytree(start.folder, tmp_path / "whole")), start.problems, start.base)
    train(whole)
    updates = list(whole.journal.updates())
    assert [update.refused for update in updates] == [None, "loss is nan (step 1)", None, None]
    assert [update.metrics["policy/refused"] for update in updates] == [0, 1, 0, 0]

    store = Store(shutil.copytree(start.folder, tmp_path / "parts"))
    with Session(RUN, store, start.problems, start.base) as first:
        for step in range(3):
            take_step(first, step)
    first.journal.files.remove("checkpoints")
    refuse()  # as on a machine on which the same update would pass
    second = Session(RUN, store, start.problems, start.base)
    train(second)
    assert snapshot(second) == snapshot(whole)


def test_a_refused_update_leaves_the_policy(
    open_session: Callable[..., Session], start: Start, store: Store, refuse: Callable[..., None]
) -> None:
    refuse(0, 1)
    session = open_session()
    for step in range(2):
        take_step(session, step)
    with session.journal.open_checkpoint(2) as (key, folder):
        assert (folder / "model.safetensors").read_bytes() == (
            store.fetch(start.base) / "model.safetensors"
        ).read_bytes()
    assert key not in (start.base.key, session.journal.read_update(0).policy)  # type: ignore[union-attr]


@pytest.mark.parametrize("killed", [False, True])
def test_updates_refused_in_a_row_stop_the_run_and_name_the_steps(
    killed: bool, open_session: Callable[..., Session], refuse: Callable[..., None]
) -> None:
    learner = RUN.learner.model_copy(update={"refusals": 2})
    refuse(0, 2, 3)
    session = open_session(learner=learner, steps=6)
    take_step(session, 0)  # one of two in a row
    take_step(session, 1)
    take_step(session, 2)
    message = (
        r"2 updates in a row were refused \(learner.refusals\):\n"
        r"  step 2: loss is nan \(step 2\)\n  step 3: loss is nan \(step 3\)"
    )
    with pytest.raises(RunStopped, match=message):
        take_step(session, 3)
    if not killed:
        session.checkpoint()
    session.close()

    again = open_session(learner=learner, steps=6)
    assert again.remaining() == range(2 if killed else 4, 6)
    with pytest.raises(RunStopped, match=message):
        again.generate(4)
    assert again.journal.read_rollouts(4).is_empty()
    again.close()

    patient = open_session(learner=RUN.learner.model_copy(update={"refusals": 3}), steps=6)
    assert patient.key == session.key
    train(patient)
    assert len(list(patient.journal.updates())) == 6


def test_too_many_unverifiable_rollouts_stop_the_run(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = (
        r"step 0: 25% of the rollouts are unverifiable, more than verify.largest_unverifiable_share = 20% "
        r"\(most often: timeout\); see .*steps/00000000/verdicts.parquet and remove it to verify them again"
    )
    with monkeypatch.context() as patch:
        make_unverifiable(patch, repeat(0.25))
        for _ in range(2):  # the verdicts are journalled: started again, it stops again
            with open_session() as session:
                session.generate(0)
                with pytest.raises(RunStopped, match=message):
                    session.verify(0)
            assert session.journal.read_update(0) is None
    session.journal.files.remove("steps/00000000/verdicts.parquet")
    train(open_session())


def test_unverifiable_rollouts_within_the_bound_do_not(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_unverifiable(monkeypatch, repeat(0.1875))
    session = open_session()
    take_step(session, 0)
    assert session.journal.read_update(0).metrics["verify/unverifiable_share"] == 0.1875  # type: ignore[union-attr]


def test_a_run_has_one_writer(open_session: Callable[..., Session]) -> None:
    first, second = open_session(), open_session()
    first.claim()
    before = first.journal.files.names()
    with pytest.raises(LeaseHeld, match=r"is held by process \d+ on .* since .*: stop that process, or wait until"):
        second.generate(0)
    assert first.journal.files.names() == before
    first.close()
    second.generate(0)


@pytest.fixture
def journalled(open_session: Callable[..., Session]) -> Files:
    """The files of a run that was killed before its last update and lost its checkpoints."""
    with open_session() as session:
        for step in range(3):
            take_step(session, step)
        session.generate(3)
        session.verify(3)
    session.journal.files.remove("checkpoints")
    return session.journal.files


def write_frame(files: Files, name: str, frame: pl.DataFrame) -> None:
    data = io.BytesIO()
    frame.write_parquet(data)
    files.write(name, data.getvalue())


def test_verdicts_that_changed_are_noticed(open_session: Callable[..., Session], journalled: Files) -> None:
    verdicts = Journal(journalled).read_verdicts(1)
    assert verdicts is not None
    other = verdicts["verdict"].replace_strict({"correct": "wrong", "wrong": "correct"}, return_dtype=pl.String)
    flipped = verdicts.with_columns(verdict=other.cast(verdicts["verdict"].dtype))
    write_frame(journalled, "steps/00000001/verdicts.parquet", flipped)
    with pytest.raises(
        RunStopped, match=r"step 1: the journal does not fit together: its update made policy .*; remove"
    ):
        open_session().generate(3)


def test_an_update_of_another_step_is_noticed(open_session: Callable[..., Session], journalled: Files) -> None:
    journalled.write("steps/00000002/update.json", journalled.read("steps/00000001/update.json"))
    with pytest.raises(RunStopped, match="step 2: the journal does not fit together: its update made policy"):
        open_session().generate(3)


def test_rollouts_of_another_policy_are_noticed(open_session: Callable[..., Session], journalled: Files) -> None:
    chunk = Journal(journalled).read_chunk(3, 1)
    assert chunk is not None
    write_frame(journalled, "steps/00000003/rollouts-0001.parquet", chunk.with_columns(policy=pl.lit("f" * 64)))
    with pytest.raises(
        RunStopped, match="step 3: the journal does not fit together: chunk 1 was sampled from policy ffff"
    ):
        open_session().generate(3)


def test_the_parts_of_a_step_have_an_order(open_session: Callable[..., Session]) -> None:
    session = open_session()
    with pytest.raises(RunStopped, match="step 0 has 0 of 16 rollouts"):
        session.verify(0)
    session.generate(0)
    with pytest.raises(RunStopped, match="step 0 has no verdicts"):
        session.update(0)
    with pytest.raises(RunStopped, match="step 0 has no verdicts"):
        session.generate(1)
    session.journal.files.remove("steps/00000000/rollouts-0001.parquet")
    session.close()
    with pytest.raises(RunStopped, match="step 0 has 8 of 16 rollouts"):
        open_session().verify(0)


def test_a_policy_that_is_not_trained_cannot_be_published(open_session: Callable[..., Session]) -> None:
    session = open_session()
    take_step(session, 0)
    with pytest.raises(RunStopped, match="step 1 has 0 of 16 rollouts"):
        session.publish()
    assert session.find_published() is None


def test_an_interrupt_after_the_journal_leaves_a_checkpoint(
    open_session: Callable[..., Session], start: Start, tmp_path: Path
) -> None:
    """The step is whole: its update was journalled, and only this process's memory of it was cut short."""
    session = open_session()
    write = session.journal.write_update

    def interrupt(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    session.journal.write_update = interrupt  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        take_step(session, 0)
    session.checkpoint()
    assert session.journal.checkpoints() == [1]
    whole = Session(RUN, Store(shutil.copytree(start.folder, tmp_path / "whole")), start.problems, start.base)
    with whole:
        take_step(whole, 0)
        whole.checkpoint()
    found, expected = (read_files(each.journal.files, "checkpoints") for each in (session, whole))
    assert found == expected


def test_an_interrupt_inside_the_update_leaves_none(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session()

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    session.generate(0)
    assert session._live is not None
    monkeypatch.setattr(session._live.learner, "update", interrupt)
    session.verify(0)
    with pytest.raises(KeyboardInterrupt):
        session.update(0)
    session.checkpoint()
    assert session.journal.checkpoints() == []
