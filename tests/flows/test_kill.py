"""A night that is killed and started again ends in the same bytes, journal and curves as an undisturbed one."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import stage as stage_tasks
from tasks import update as update_tasks
from tasks.tracking import RunRef, connect
from tests.chaos.attempt import KillPoint, draw_kill_points
from tests.chaos.comparison import (
    assert_equal_nights,
    place,
    read_attempts,
    run_crashing_night,
    run_killed_night,
    run_retried_night,
    undisturbed,
)
from tests.chaos.crash import Crash
from tests.flows.night import Place, smoke

__all__ = ["place", "undisturbed"]

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [5, 9])  # in a step and later stages; in two evaluations
def test_killed_at_random_points(seed: int, place: Place, undisturbed: Place, prefect_server: str) -> None:
    points = draw_kill_points(seed, len(undisturbed.store.names()))
    run_killed_night(place, prefect_server, points)
    assert_equal_nights(place, undisturbed)
    assert read_attempts(place) > 1


@pytest.mark.timeout(600)
def test_killed_and_retried_through_prefect(place: Place, undisturbed: Place, prefect_server: str) -> None:
    run_retried_night(place, prefect_server, KillPoint(files=25, delay=0.0))
    assert_equal_nights(place, undisturbed)
    assert read_attempts(place) == 2


def test_crashed_again_and_again(place: Place, undisturbed: Place) -> None:
    crashes = run_crashing_night(place, seed=0)
    assert_equal_nights(place, undisturbed)
    assert read_attempts(place) == crashes + 1 > 2


def test_killed_between_publishing_and_the_end_of_tracking(
    place: Place, undisturbed: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact is there and will be found, but its MLflow run has not shown it, or has and is not closed."""
    left = ["before prepare", "after prepare", "before train agpo", "after train agpo", "before judge", "after judge"]
    log_result = stage_tasks.log_result

    def crash_once(pipeline: Any, run: RunRef, *arguments: Any) -> None:
        name = connect(run.tracking_uri).get_run(run.run_id).info.run_name
        for moment in ("before", "after"):
            if left[:1] == [f"{moment} {name}"]:
                left.pop(0)
                raise Crash
            if moment == "before":
                log_result(pipeline, run, *arguments)

    for module in (stage_tasks, update_tasks):
        monkeypatch.setattr(module, "log_result", crash_once)
    while left:
        with pytest.raises(Crash):
            place.run(smoke())
    assert place.run(smoke()).is_completed()
    assert_equal_nights(place, undisturbed)
