"""Guarded runs: what is refused depends on the journal only, so a run that is left and taken up refuses the same."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from agpo.artifacts import Store
from agpo.journal import RunStopped
from agpo.objectives.nsr import Nsr
from agpo.session import Session
from agpo.settings import GuardSettings
from tests.agpo.session_start import RUN, Start, open_session, snapshot, start, store, take_step, train

__all__ = ["open_session", "start", "store"]

STEPS = 14
STRICT = RUN.learner.model_copy(
    update={"guards": GuardSettings(gradient_norm=1.2, kl=5e-4, entropy_change=0), "refusals": STEPS}
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


def test_a_run_that_diverges_stops_before_its_policy_is_ruined(open_session: Callable[..., Session]) -> None:
    """Growing steps on negative samples alone: the default bounds let the first pass and refuse the last."""
    learner = RUN.learner.model_copy(update={"rate": 0.003, "refusals": 3})
    with open_session(learner=learner, objective=Nsr(), steps=STEPS) as session:
        with pytest.raises(RunStopped, match="3 updates in a row were refused") as stopped:
            for step in session.remaining():
                take_step(session, step)
        session.checkpoint()
        updates = list(session.journal.updates())
    assert updates[0].refused is None
    last = len(updates) - 1
    for step, line in zip(range(last - 2, last + 1), str(stopped.value).splitlines()[1:], strict=True):
        assert re.fullmatch(
            rf"  step {step}: .* is above learner\.guards\.\w+ = [\d.]+.* \(step {step}, \d+ rows\)", line
        ), line
    assert all(math.isfinite(value) for update in updates for value in update.metrics.values())
    with session.journal.open_checkpoint(last + 1) as (_, folder):
        assert all(part.isfinite().all() for part in load_file(folder / "model.safetensors").values())
