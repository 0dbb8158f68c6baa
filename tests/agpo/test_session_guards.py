"""Guarded runs: what is refused depends on the journal only, so a run that is left and taken up refuses the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agpo.artifacts import Store
from agpo.session import Session
from agpo.settings import GuardSettings
from tests.agpo.session_start import RUN, Start, open_session, snapshot, start, store, take_step, train

__all__ = ["open_session", "start", "store"]

STEPS = 14
STRICT = RUN.learner.model_copy(
    update={"guards": GuardSettings(gradient_norm=1.3, kl=3e-4, entropy_change=0), "refusals": STEPS}
)
SETTINGS = {"learner": STRICT, "steps": STEPS, "checkpoint_every": 4}


@pytest.mark.parametrize("checkpoints", [True, False], ids=["from checkpoints", "from the base"])
def test_a_run_taken_up_refuses_the_same_updates(
    checkpoints: bool, open_session: Callable[..., Session], start: Start, tmp_path: Path
) -> None:
    store = Store(shutil.copytree(start.folder, tmp_path / "whole"))
    whole = Session(RUN.model_copy(update=SETTINGS), store, start.problems, start.base)
    train(whole)
    reasons = [update.refused or "" for update in whole.journal.updates()]
    assert 0 < sum("learner.guards.kl" in reason for reason in reasons) < STEPS
    assert 0 < sum("learner.guards.gradient_norm" in reason for reason in reasons) < STEPS

    for step in (7, 10, STEPS - 1):
        with open_session(**SETTINGS) as part:
            for one in range(part.remaining().start, step):
                take_step(part, one)
        if not checkpoints:
            part.journal.files.remove("checkpoints")
    last = open_session(**SETTINGS)
    train(last)
    found, expected = snapshot(last), snapshot(whole)
    if not checkpoints:
        for made in (found, expected):
            del made["checkpoints"]
    assert found == expected


def test_guards_are_part_of_the_key(open_session: Callable[..., Session]) -> None:
    """They decide which updates are applied."""
    assert open_session().key != open_session(learner=STRICT).key
