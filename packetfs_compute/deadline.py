"""One moment by which everything must have ended, and how much time is left until then."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from packetfs_compute.errors import AttemptTimeout

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a monotonic clock. Passed down, never restarted: each step asks what is left of the same budget."""

    at_s: float
    budget_s: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, budget_s: float, clock: Callable[[], float] = time.monotonic, *, spent_s: float = 0.0) -> "Deadline":
        """Return the deadline of a budget of ``budget_s`` seconds, ``spent_s`` of which are gone already."""
        return cls(clock() + budget_s - spent_s, budget_s, clock)

    def remaining_s(self) -> float:
        """Return the seconds left, always more than zero; raise :class:`AttemptTimeout` when there are none."""
        left = self.at_s - self.clock()
        if left <= 0:
            raise self.overdue()
        return left

    def overdue(self) -> AttemptTimeout:
        """Return the error to raise when it has passed."""
        return AttemptTimeout(f"the deadline of {self.budget_s:g} s has passed")
