"""A publisher's own rates."""

import pytest

from packetfs_compute.routing.pace import TAU_S, Pace


def test_a_steady_rate_is_found() -> None:
    pace = Pace()
    for at in range(1000):
        pace.sent("a", at / 20)
    assert pace.rate("a", 50.0) == pytest.approx(20.0, rel=0.02)


def test_classes_are_apart_and_one_that_nobody_asked_for_has_none() -> None:
    pace = Pace()
    pace.sent("a", 1.0)
    assert (pace.rate("a", 1.0), pace.rate("b", 1.0)) == (1 / TAU_S, 0.0)


def test_it_is_forgotten_and_a_clock_that_goes_back_forgets_nothing() -> None:
    pace = Pace()
    pace.sent("a", 100.0)
    assert pace.rate("a", 100.0 + 10 * TAU_S) < 1e-4
    assert pace.rate("a", 50.0) == 1 / TAU_S
