"""What the tests of sessions start from: problems and a base policy that were made once, and runs on copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from agpo.artifacts import ArtifactRef, Store
from agpo.recipe import Recipe
from agpo.session import Session
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
from agpo.verify import rollouts as verification
from tests.chaos.snapshot import read_files, read_run

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


def make_start(folder: Path, run: TrainRun = RUN) -> Start:
    store, recipe = Store(folder), Recipe(run)
    problems = recipe.prepare().run(store, {}).ref
    base = recipe.warm_start(problems.key).run(store, {"problems": problems}).ref
    return Start(folder, problems, base)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    return make_start(tmp_path_factory.mktemp("start"))


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
    found = [part(step, round)[1] for round in session.rounds(step) for part in (session.generate, session.verify)]
    return all([*found, session.update(step)[1]])


def train(session: Session) -> Result:
    with session:
        for step in session.remaining():
            take_step(session, step)
        return session.publish()


def train_all(run: TrainRun, folder: Path) -> Session:
    """A finished run with problems and a base of its own; ``folder``: of its store."""
    start = make_start(folder, run)
    session = Session(run, Store(folder), start.problems, start.base)
    train(session)
    return session


def snapshot(session: Session) -> dict[str, Any]:
    policy = session.find_published()
    assert policy is not None
    content = session.store.content(policy)
    return {**read_run(session.store.files, session.key), "policy": (policy.key, read_files(content))}


def make_unverifiable(monkeypatch: pytest.MonkeyPatch, shares: Iterable[float]) -> None:
    """Let the first rollouts of each round be unverifiable; ``shares``: of the rounds, as they come to be verified."""
    verify, of_rounds = verification.verify_rollouts, iter(shares)

    def leave_open(*arguments: Any, **options: Any) -> pl.DataFrame:
        verdicts: pl.DataFrame = verify(*arguments, **options)
        open_ones = pl.int_range(pl.len()) < round(next(of_rounds) * len(verdicts))
        return verdicts.with_columns(
            verdict=pl.when(open_ones)
            .then(pl.lit("unverifiable"))
            .otherwise("verdict")
            .cast(verdicts["verdict"].dtype),
            reason=pl.when(open_ones).then(pl.lit("timeout")).otherwise("reason"),
        )

    monkeypatch.setattr(verification, "verify_rollouts", leave_open)
