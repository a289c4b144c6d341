"""A deadline on a clock that the test moves."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from packetfs_compute.deadline import Deadline, Token, cancelled_by
from packetfs_compute.errors import AttemptTimeout, Cancelled


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


class TestToken:
    def test_a_deadline_made_under_a_token_passes_when_that_is_cancelled(self) -> None:
        clock, token = Clock(), Token()
        with cancelled_by(token):
            deadline = Deadline.after(30, clock)
        assert (deadline.remaining_s(), deadline.turn_s) == (30, 0.5)
        token.cancel()
        for _ in range(2):
            with pytest.raises(Cancelled, match="was cancelled"):
                deadline.remaining_s()
        clock.now_s += 31
        with pytest.raises(Cancelled):  # that comes first, for whoever cancels waits for no answer, be it a timeout
            deadline.remaining_s()

    def test_others_do_not(self) -> None:
        token, other = Token(), Token()
        before = Deadline.after(30, Clock())
        with cancelled_by(other):
            with cancelled_by(token), ThreadPoolExecutor(1) as threads:
                elsewhere = threads.submit(Deadline.after, 30, Clock()).result()
            around = Deadline.after(30, Clock())
        after = Deadline.after(30, Clock())
        token.cancel()
        assert [one.remaining_s() for one in (before, elsewhere, around, after)] == [30] * 4
        assert [one.turn_s for one in (before, elsewhere, around, after)] == [math.inf, math.inf, 0.5, math.inf]

    def test_a_context_that_fails_is_left_too(self) -> None:
        with pytest.raises(KeyError), cancelled_by(Token()):
            raise KeyError
        assert Deadline.after(30, Clock()).token is None
