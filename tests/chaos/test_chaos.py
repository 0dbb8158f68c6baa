"""Many nights, killed at random points; `make chaos`."""

from __future__ import annotations

import pytest

from tests.chaos.attempt import draw_kill_points
from tests.chaos.comparison import (
    assert_equal_nights,
    place,
    run_crashing_night,
    run_killed_night,
    run_retried_night,
    undisturbed,
)
from tests.flows.night import Place
from tests.pipeline_fixtures import mlflow_template, prefect_server

__all__ = ["mlflow_template", "place", "prefect_server", "undisturbed"]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.mark.parametrize("seed", range(20))
def test_a_killed_night_ends_the_same(seed: int, place: Place, undisturbed: Place, prefect_server: str) -> None:
    """Every fourth one is not started again but retried through Prefect, after the first kill."""
    points = draw_kill_points(seed, len(undisturbed.store.names()))
    if seed % 4 == 3:
        run_retried_night(place, prefect_server, points[0])
    else:
        run_killed_night(place, prefect_server, points)
    assert_equal_nights(place, undisturbed)


@pytest.mark.parametrize("seed", range(10))
def test_a_night_that_crashes_again_and_again_ends_the_same(seed: int, place: Place, undisturbed: Place) -> None:
    assert run_crashing_night(place, seed) > 1
    assert_equal_nights(place, undisturbed)
