"""A deadline on a clock that the test moves."""

import dataclasses

import pytest

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_what_is_left_shrinks_as_time_passes() -> None:
    clock = Clock()
    deadline = Deadline.after(30, clock)
    assert deadline.remaining_s() == 30
    clock.now_s += 12.5
    assert deadline.remaining_s() == 17.5
    assert deadline.remaining_s() == 17.5


def test_what_is_spent_already_is_not_given_again() -> None:
    assert Deadline.after(30, Clock(), spent_s=10).remaining_s() == 20


@pytest.mark.parametrize("late_s", [0, 0.001, 5, 1e9])
def test_nothing_left_is_a_timeout_that_names_the_budget(late_s: float) -> None:
    clock = Clock()
    deadline = Deadline.after(2.5, clock)
    clock.now_s += 2.5 + late_s
    with pytest.raises(AttemptTimeout, match=r"^the deadline of 2\.5 s has passed$"):
        deadline.remaining_s()


@pytest.mark.parametrize(("budget_s", "spent_s"), [(0, 0), (-1, 0), (5, 5), (5, 6), (5, float("inf"))])
def test_a_deadline_may_be_over_from_the_start(budget_s: float, spent_s: float) -> None:
    with pytest.raises(AttemptTimeout):
        Deadline.after(budget_s, Clock(), spent_s=spent_s).remaining_s()


def test_the_last_moment_counts() -> None:
    clock = Clock(0.0)
    deadline = Deadline.after(1.0, clock)
    clock.now_s = 1.0 - 2**-53
    assert deadline.remaining_s() > 0


def test_it_cannot_be_moved() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Deadline.after(1, Clock()).at_s = 5  # type: ignore[misc]
