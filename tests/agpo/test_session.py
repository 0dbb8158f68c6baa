from __future__ import annotations

import random
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.artifacts import Store
from agpo.journal import Journal
from agpo.learner.update import Learner, Outcome
from agpo.rollout import LocalEngine
from agpo.session import Session
from agpo.settings import LossSettings
from agpo.verify import VerifierPool
from agpo.verify import rollouts as verification
from tests.agpo.session_start import RUN, Start, open_session, snapshot, start, store, take_step, train
from tests.chaos.crash import Crash, crash_after
from tests.chaos.snapshot import count_rows, read_files

__all__ = ["open_session", "start", "store"]


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The snapshot of `RUN`."""
    store = Store(shutil.copytree(start.folder, tmp_path_factory.mktemp("undisturbed") / "store"))
    session = Session(RUN, store, start.problems, start.base)
    train(session)
    return snapshot(session)


def test_the_run_is_worth_comparing(undisturbed: dict[str, Any]) -> None:
    counts = count_rows(undisturbed["steps"])
    assert counts["rollouts"].to_list() == [16] * 4
    assert 8 < counts["correct"].sum() < 56
    bytes_of = undisturbed["checkpoints"]
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert bytes_of[f"checkpoints/00000002/{file}"] != bytes_of[f"checkpoints/00000004/{file}"]


def test_a_step_hands_on_references(open_session: Callable[..., Session]) -> None:
    session = open_session()
    (rollouts, found), (verdicts, _), (policy, _) = session.generate(0), session.verify(0), session.update(0)
    assert not found
    assert (rollouts.kind, rollouts.rows, verdicts.kind, verdicts.rows) == ("rollouts", 16, "verdicts", 16)
    assert policy.key == session.journal.read_update(0).policy  # type: ignore[union-attr]
    assert len({rollouts.key, verdicts.key, policy.key, session.base.key}) == 4
    assert session.generate(1)[0].key != rollouts.key


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 6, 8, 10])
def test_a_run_goes_on_where_it_was_left(
    parts: int, open_session: Callable[..., Session], undisturbed: dict[str, Any]
) -> None:
    """Left after ``parts`` parts of steps."""
    with open_session() as session:
        for part in range(parts):
            (session.generate, session.verify, session.update)[part % 3](part // 3)
    session = open_session()
    assert session.remaining() == range(2 if parts >= 6 else 0, 4)
    train(session)
    assert snapshot(session) == undisturbed


def test_a_longer_run_continues_a_shorter_one(
    open_session: Callable[..., Session], undisturbed: dict[str, Any]
) -> None:
    train(open_session(steps=2))
    longer = open_session(steps=4)
    assert longer.remaining() == range(2, 4)
    train(longer)
    assert snapshot(longer) == undisturbed


def test_a_length_between_checkpoints_continues_too(
    open_session: Callable[..., Session], undisturbed: dict[str, Any]
) -> None:
    train(open_session(steps=3))
    longer = open_session(steps=4)
    train(longer)
    found = snapshot(longer)
    found["checkpoints"] = {name: sha for name, sha in found["checkpoints"].items() if "00000003" not in name}
    assert found == undisturbed


def test_a_shorter_length_after_a_longer_run_gives_the_earlier_policy(
    open_session: Callable[..., Session], tmp_path: Path, start: Start
) -> None:
    fresh = Store(shutil.copytree(start.folder, tmp_path / "fresh"))
    expected = Session(RUN.model_copy(update={"steps": 3}), fresh, start.problems, start.base)
    train(expected)
    train(open_session())
    shorter = open_session(steps=3)
    assert shorter.remaining() == range(2, 3)
    train(shorter)
    assert snapshot(shorter)["policy"] == snapshot(expected)["policy"]
    assert len(list(shorter.journal.updates())) == 4


def test_no_step_is_the_base(open_session: Callable[..., Session], store: Store, start: Start) -> None:
    result = train(open_session(steps=0))
    assert read_files(store.content(result.ref)) == read_files(store.content(start.base))


def test_a_published_run_opens_nothing(open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_session()
    made = train(first)
    before = read_files(first.store.files)
    monkeypatch.setattr(Session, "_restore", None)  # what loads model, pool and lease
    again = open_session()
    assert list(again.remaining()) == []
    found = train(again)
    assert (found.ref, found.found, found.summary) == (made.ref, True, made.summary)
    assert read_files(first.store.files) == before


def test_a_run_works_on_an_object_store(start: Start, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}", copies=tmp_path / "fetched")
    store.files.put(start.folder)
    with Session(RUN, store, start.problems, start.base) as first:
        for step in range(3):
            take_step(first, step)
    session = Session(RUN, store, start.problems, start.base)
    assert session.remaining() == range(2, 4)
    train(session)
    assert snapshot(session) == undisturbed


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_crashes_again_and_again_ends_the_same(
    seed: int, open_session: Callable[..., Session], undisturbed: dict[str, Any]
) -> None:
    """Each attempt gets up to twelve writes further: a step has four, a checkpoint seven, the policy six."""
    draw, crashes = random.Random(seed), []
    while True:
        session = open_session()
        try:
            with crash_after(draw.randint(1, 12), mlflow=False) as passed:
                train(session)
            break
        except Crash:
            crashes.append(passed[-1])
    assert snapshot(session) == undisturbed
    assert len(crashes) > 3


def test_replay_neither_generates_nor_verifies(
    open_session: Callable[..., Session], undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_session() as first:
        for step in range(4):
            take_step(first, step)
    first.journal.files.remove("checkpoints")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a journalled step was made again")

    monkeypatch.setattr(LocalEngine, "generate", refuse)
    monkeypatch.setattr(VerifierPool, "verify", refuse)
    session = open_session()
    assert session.remaining() == range(4)
    with session:
        assert all(take_step(session, step) for step in range(4))
        session.publish()
    assert snapshot(session) == undisturbed


def test_publishing_replays_what_has_no_checkpoint(
    open_session: Callable[..., Session], undisturbed: dict[str, Any]
) -> None:
    with open_session() as first:
        for step in range(4):
            take_step(first, step)
    first.journal.files.remove("checkpoints/00000004.json")
    session = open_session()
    with session:
        session.publish()
    assert snapshot(session) == undisturbed


def test_a_session_that_was_left_dirty_is_rebuilt(
    open_session: Callable[..., Session], undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after the weights moved: the same session goes on from the checkpoint, not from those weights."""
    update = Learner.update

    def update_and_fail(self: Learner, batch: Any, step: int) -> Outcome:
        update(self, batch, step)
        raise MemoryError("after the optimiser step")

    session = open_session()
    with session:
        for step in range(3):
            session.generate(step)
            session.verify(step)
            if step != 1:
                with monkeypatch.context() as patch:
                    patch.setattr(Learner, "update", update_and_fail)
                    with pytest.raises(MemoryError):
                        session.update(step)
                assert session.journal.read_update(step) is None
                session.checkpoint()
                assert step not in session.journal.checkpoints()[1:]
            session.update(step)
        take_step(session, 3)
        session.publish()
    assert snapshot(session) == undisturbed


def test_a_failed_journal_write_leaves_the_session_dirty(
    open_session: Callable[..., Session], undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session()
    with session:
        session.generate(0)
        session.verify(0)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write_update", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                session.update(0)
        session.update(0)
        for step in range(1, 4):
            take_step(session, step)
        session.publish()
    assert snapshot(session) == undisturbed


def test_a_step_without_a_gradient_replays_the_same(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When every rollout is right no advantage is left, and AdamW moves by its momentum alone."""
    verify = verification.verify_rollouts

    def all_right_at_step_1(rollouts: pl.DataFrame, *arguments: Any, **options: Any) -> pl.DataFrame:
        verdicts: pl.DataFrame = verify(rollouts, *arguments, **options)
        if not rollouts["id"][0].startswith("1/"):
            return verdicts
        return verdicts.with_columns(verdict=pl.lit("correct").cast(verdicts["verdict"].dtype))

    monkeypatch.setattr(verification, "verify_rollouts", all_right_at_step_1)
    run = RUN.model_copy(update={"loss": LossSettings(kl=0.0), "checkpoint_every": 1})
    found = []
    for name, sessions in (("one", 1), ("many", 4)):
        store = Store(shutil.copytree(start.folder, tmp_path / name))
        for number in range(1, sessions + 1):
            session = Session(run, store, start.problems, start.base)
            with session:
                for step in range(session.remaining().start, 4 * number // sessions):
                    take_step(session, step)
        train(session)
        found.append(snapshot(session))
    assert found[0] == found[1]
    assert found[0]["steps"][1]["metrics"]["rollout/accuracy"] == 1
