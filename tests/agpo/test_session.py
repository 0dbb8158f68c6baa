from __future__ import annotations

import io
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from agpo.artifacts import ArtifactRef, Files, Store
from agpo.artifacts import local as local_files
from agpo.artifacts.lease import LeaseHeld
from agpo.journal import Journal
from agpo.learner.update import Learner, Outcome
from agpo.recipe import Recipe
from agpo.rollout import LocalEngine
from agpo.session import RunStopped, Session
from agpo.settings import (
    CountdownProblems,
    LossSettings,
    ModelShape,
    RolloutSettings,
    ScratchBase,
    Supervised,
    TrainRun,
    VerifySettings,
)
from agpo.stages import Result
from agpo.verify import VerifierPool
from agpo.verify import rollouts as verification
from tests.chaos.snapshot import count_rows, read_files, read_run

# Two numbers, so that a model that is made in two seconds solves about half of the problems.
RUN = TrainRun(
    problems=CountdownProblems(
        numbers=2, highest=6, largest=12, train=24, selection=4, confirmation=4, demonstrations=1000, noise=0
    ),
    base=ScratchBase(
        model=ModelShape(width=32, layers=1, heads=2, feed_forward=64),
        training=Supervised(steps=150, batch=32, rate=0.01, warm_up=5),
    ),
    rollout=RolloutSettings(problems=4, samples=4, chunk=8, tokens=6),
    verify=VerifySettings(workers=1),
    loss=LossSettings(kl=0.05),
    steps=4,
    checkpoint_every=2,
    device="cpu",
)


class Start(NamedTuple):
    """What every run of these tests starts from."""

    folder: Path
    problems: ArtifactRef
    base: ArtifactRef


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    folder = tmp_path_factory.mktemp("start")
    store, recipe = Store(folder), Recipe(RUN)
    problems = recipe.prepare().run(store, {}).ref
    base = recipe.warm_start(problems.key).run(store, {"problems": problems}).ref
    return Start(folder, problems, base)


@pytest.fixture
def store(start: Start, tmp_path: Path) -> Store:
    return Store(shutil.copytree(start.folder, tmp_path / "store"))


@pytest.fixture
def open_session(start: Start, store: Store) -> Iterator[Callable[..., Session]]:
    """Opens sessions of `RUN` with other settings; all are closed when the test ends."""
    sessions: list[Session] = []

    def open_one(**settings: Any) -> Session:
        session = Session(RUN.model_copy(update=settings), store, start.problems, start.base)
        sessions.append(session)
        return session

    yield open_one
    for session in sessions:
        session.close()


def take_step(session: Session, step: int) -> bool:
    """Whether every part of the step was found."""
    return all([part(step)[1] for part in (session.generate, session.verify, session.update)])


def train(session: Session) -> Result:
    with session:
        for step in session.remaining():
            take_step(session, step)
        return session.publish()


def snapshot(session: Session) -> dict[str, Any]:
    policy = session.find_published()
    assert policy is not None
    content = session.store.content(policy)
    return {**read_run(session.store.files, session.key), "policy": (policy.key, read_files(content))}


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


@pytest.mark.parametrize("parts", range(1, 12))
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


# Crashes


class Crash(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@contextmanager
def crash_before_write(number: int) -> Iterator[list[str]]:
    """Let ``number`` durable writes pass and crash before the next; yields their names."""
    passed: list[str] = []

    def guard(write: Callable[..., Any], position: int) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            if "lease" not in Path(arguments[position]).parts:
                if len(passed) == number:
                    raise Crash
                passed.append(Path(arguments[position]).name)
            return write(*arguments, **options)

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        for name, position in (("write_file", 0), ("create_file", 0), ("copy_file", 1)):
            patch.setattr(local_files, name, guard(getattr(local_files, name), position))
        yield passed


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_crashes_again_and_again_ends_the_same(
    seed: int, open_session: Callable[..., Session], undisturbed: dict[str, Any]
) -> None:
    """Each attempt gets up to twelve writes further: a step has four, a checkpoint seven, the policy six."""
    draw, crashes = random.Random(seed), []
    while True:
        session = open_session()
        try:
            with crash_before_write(draw.randint(1, 12)) as passed:
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


# What stops a run


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the learner refuse certain steps."""
    update = Learner.update

    def install(*steps: int) -> None:
        def refuse_some(self: Learner, batch: Any, step: int) -> Outcome:
            return Outcome(f"loss is nan (step {step})", {}) if step in steps else update(self, batch, step)

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


def make_unverifiable(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    verify = verification.verify_rollouts

    def leave_open(*arguments: Any, **options: Any) -> pl.DataFrame:
        verdicts: pl.DataFrame = verify(*arguments, **options)
        open_ones = pl.int_range(pl.len()) < round(share * len(verdicts))
        return verdicts.with_columns(
            verdict=pl.when(open_ones)
            .then(pl.lit("unverifiable"))
            .otherwise("verdict")
            .cast(verdicts["verdict"].dtype),
            reason=pl.when(open_ones).then(pl.lit("timeout")).otherwise("reason"),
        )

    monkeypatch.setattr(verification, "verify_rollouts", leave_open)


def test_too_many_unverifiable_rollouts_stop_the_run(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = (
        r"step 0: 25% of the rollouts are unverifiable, more than verify.largest_unverifiable_share = 20% "
        r"\(most often: timeout\); see .*steps/00000000/verdicts.parquet and remove it to verify them again"
    )
    with monkeypatch.context() as patch:
        make_unverifiable(patch, share=0.25)
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
    make_unverifiable(monkeypatch, share=0.1875)
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
