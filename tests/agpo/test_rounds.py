"""Dynamic sampling: problems whose groups do not teach are replaced, and the run stays as durable as any other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

import polars as pl
import pytest

from agpo.journal import RunStopped
from agpo.learner.update import Learner
from agpo.objectives import Agpo, Grpo
from agpo.rounds import Rounds
from agpo.session import Session
from tests.agpo.session_start import (
    RUN,
    make_unverifiable,
    open_session,
    snapshot,
    start,
    store,
    take_step,
    train,
)

__all__ = ["open_session", "start", "store"]

REFILLED = {"rollout": RUN.rollout.model_copy(update={"refills": 3, "problems": 6}), "objective": Grpo()}


def mixed(session: Session, step: int) -> list[str]:
    """Problems of a step that some but not all rollouts solve, by the journal."""
    verdicts = session.journal.read_verdicts(step)
    assert verdicts is not None
    rows = session.journal.read_rollouts(step).join(verdicts, on="id", maintain_order="left")
    right = (pl.col("verdict") == "correct").mean()
    shares = rows.filter(~pl.col("truncated")).group_by("problem_id", maintain_order=True).agg(right=right)
    return shares.filter(pl.col("right").is_between(0, 1, closed="none"))["problem_id"].to_list()


def test_a_step_is_refilled_until_its_groups_teach(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []
    update = Learner.update

    def note(learner: Learner, batch: Any, step: int) -> Any:
        taken.append(batch)
        return update(learner, batch, step)

    monkeypatch.setattr(Learner, "update", note)
    session = open_session(**REFILLED)
    take_step(session, 0)
    rounds = list(session.rounds(0))
    teaching = mixed(session, 0)
    assert len(rounds) > 1
    problems = [session._rounds.select(0, round)["id"].to_list() for round in rounds]
    everyone = list(chain(*problems))
    assert len(set(everyone)) == len(everyone)
    # A refill asks for as many problems as the rounds before lack.
    for number in range(1, len(rounds)):
        known = [name for name in teaching if name in chain(*problems[:number])]
        assert len(problems[number]) == 6 - len(known)
    (batch,) = taken
    used = {name.split("/", 1)[1].rsplit("/", 1)[0] for name in batch.ids}
    assert used == set(teaching[:6])
    recorded = session.journal.read_update(0)
    assert recorded is not None
    assert recorded.metrics["rollout/rounds"] == len(rounds)


def test_agpo_keeps_unsolved_groups(open_session: Callable[..., Session]) -> None:
    """GRPO asks for problems in their place."""
    rollout = REFILLED["rollout"].model_copy(update={"temperature": 5.0})  # hardly an answer is right  # type: ignore[attr-defined]
    for objective, rounds in ((Agpo(), 1), (Grpo(), 4)):
        loss = RUN.loss.model_copy(update={"mask_truncated": False})
        session = open_session(rollout=rollout, objective=objective, loss=loss)
        take_step(session, 0)
        assert len(list(session.rounds(0))) == rounds
        session.close()


def test_refills_end_where_no_problem_is_left(open_session: Callable[..., Session]) -> None:
    rollout = REFILLED["rollout"].model_copy(update={"refills": 99, "temperature": 5.0})  # type: ignore[attr-defined]
    session = open_session(rollout=rollout, objective=Grpo())
    take_step(session, 0)
    assert session.journal.read_rollouts(0)["problem_id"].n_unique() == 24


@pytest.mark.parametrize("parts", [1, 3, 6])
def test_a_refilled_run_goes_on_where_it_was_left(parts: int, open_session: Callable[..., Session]) -> None:
    wanted = open_session(**REFILLED, seed=1)
    train(wanted)
    expected = snapshot(wanted)
    for folder in ("journal", "policy"):
        for key in wanted.store.files.folders(folder):
            if key != wanted.base.key:
                wanted.store.files.remove(f"{folder}/{key}")
    left = open_session(**REFILLED, seed=1)
    done = 0
    for step in left.remaining():
        for round in left.rounds(step):
            for part in (left.generate, left.verify):
                if done < parts:
                    part(step, round)
                done += 1
            if done >= parts:
                break
        if done >= parts:
            break
        left.update(step)
    left.close()
    again = open_session(**REFILLED, seed=1)
    train(again)
    assert snapshot(again) == expected


def test_the_bound_on_unverifiable_rollouts_is_one_of_the_whole_step(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 20 %: a refill of which a quarter is left open goes on, one that takes the step beyond the bound stops it."""
    with monkeypatch.context() as patch, open_session(**REFILLED) as within:
        make_unverifiable(patch, chain([0, 0.25], repeat(0)))
        take_step(within, 0)
        refill = within.journal.read_round(0, 1)
        assert refill is not None
        assert (refill["verdict"] == "unverifiable").sum() > 0.2 * len(refill)

    make_unverifiable(monkeypatch, [1 / 6, 1])
    beyond = open_session(**REFILLED, seed=1)
    with pytest.raises(RunStopped) as caught:
        take_step(beyond, 0)
    first, second = (len(beyond.journal.read_rollouts(0, round)) for round in range(2))
    share = (first / 6 + second) / (first + second)
    assert share < 0.9  # that of the refill is 1
    assert str(caught.value).startswith(f"step 0: {share:.0%} of the rollouts are unverifiable")


def test_a_missing_round_is_named(open_session: Callable[..., Session]) -> None:
    session = open_session(**REFILLED)
    take_step(session, 0)
    session.journal.files.remove("steps/00000000/round-01/rollouts-0000.parquet")
    problems = session.store.fetch(session.problems) / "problems.parquet"
    with pytest.raises(RunStopped, match=r"step 0 has \d+ of \d+ rollouts"):
        Rounds(session.run, session.journal, problems).read_all(0)
