from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agpo.session import Session
from agpo.settings.engine import SavedRollouts
from tests.agpo.session_start import RUN, open_session, start, store, take_step

__all__ = ["open_session", "start", "store"]


@pytest.fixture
def saved(open_session: Callable[..., Session]) -> dict[str, Any]:
    """Settings of a run whose rollouts are those of the first two steps of `RUN`."""
    session = open_session()
    for step in range(2):
        take_step(session, step)
    session.close()
    return {"rollout": RUN.rollout.model_copy(update={"engine": SavedRollouts(journal=session.journal.files.uri)})}


def test_a_run_on_saved_rollouts_is_the_run_that_saved_them(
    open_session: Callable[..., Session], saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agpo.rollout.local_engine.LocalEngine.generate", None)
    first, again = open_session(), open_session(**saved)
    for step in range(2):
        take_step(again, step)
        assert again.journal.read_rollouts(step).equals(first.journal.read_rollouts(step))
        mine, theirs = again.journal.read_update(step), first.journal.read_update(step)
        assert mine is not None and theirs is not None
        assert mine.policy == theirs.policy
        assert mine.metrics["policy/gradient_norm"] == theirs.metrics["policy/gradient_norm"]


def test_other_settings_of_the_learner_meet_the_same_answers(
    open_session: Callable[..., Session], saved: dict[str, Any]
) -> None:
    """Their log-probs stay those of the policy that was sampled, and the rows name it."""
    first = open_session()
    again = open_session(**saved, learner=RUN.learner.model_copy(update={"rate": 1e-2, "warm_up": 0}))
    for step in range(2):
        take_step(again, step)
    assert again.journal.read_rollouts(1).equals(first.journal.read_rollouts(1))
    on_policy, off_policy = first.journal.read_update(1), again.journal.read_update(1)
    assert on_policy is not None and off_policy is not None
    name = "policy/sampler_mismatch_kl"
    assert off_policy.metrics[name] > 1000 * on_policy.metrics[name]


def test_a_frozen_run_saves_rollouts_of_the_base(open_session: Callable[..., Session]) -> None:
    """What it saves trains as well as any: rollout-only, then train-only."""
    frozen = open_session(learner=RUN.learner.model_copy(update={"frozen": True}))
    weights = {name: part.clone() for name, part in frozen._at(0).model.state_dict().items()}
    for step in range(2):
        take_step(frozen, step)
        update = frozen.journal.read_update(step)
        assert update is not None and update.refused is None
        assert update.skipped == "learner.frozen = true"
    assert all(part.equal(weights[name]) for name, part in frozen._at(2).model.state_dict().items())
    frozen.close()
    engine = SavedRollouts(journal=frozen.journal.files.uri)
    trained = open_session(rollout=RUN.rollout.model_copy(update={"engine": engine}))
    for step in range(2):
        take_step(trained, step)
    assert trained.journal.read_rollouts(1).equals(frozen.journal.read_rollouts(1))
    assert any(not part.equal(weights[name]) for name, part in trained._at(2).model.state_dict().items())


def test_what_was_not_saved_is_named(open_session: Callable[..., Session], saved: dict[str, Any]) -> None:
    session = open_session(**saved)
    for step in range(2):
        take_step(session, step)
    with pytest.raises(ValueError, match=r"rollout\.engine\.journal\) has no rollout 2/"):
        take_step(session, 2)


def test_what_was_sampled_otherwise_is_refused(open_session: Callable[..., Session], saved: dict[str, Any]) -> None:
    rollout = saved["rollout"].model_copy(update={"temperature": 0.5})
    with pytest.raises(ValueError, match=r"rollout\.temperature = 0\.5, but the rollouts in .* with 1; accepted"):
        take_step(open_session(rollout=rollout), 0)


def test_a_place_without_a_journal_is_refused(open_session: Callable[..., Session], tmp_path: Any) -> None:
    engine = SavedRollouts(journal=str(tmp_path))
    with pytest.raises(ValueError, match=r"rollout\.engine\.journal: there is no run\.json"):
        take_step(open_session(rollout=RUN.rollout.model_copy(update={"engine": engine})), 0)
