"""One moment by which everything must have ended, and how much time is left until then.

Work that nobody wants any more ends in the same way, only at once: a deadline that was made while a thread worked under a
:class:`Token` has passed when that is cancelled. Nothing is interrupted. Whoever works asks often what is left, and who
waits for an answer looks up twice a second (:attr:`Deadline.turn_s`). Finding a host and connecting to it have short bounds
of their own, and are not looked up from.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from packetfs_compute.errors import AttemptTimeout, Cancelled

__all__ = ["Deadline", "Token", "cancelled_by"]

_TURN_S: Final = 0.5


class Token:
    """Whether some work is still wanted. Any thread may take that back."""

    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        """Say that nobody wants it any more; that stands."""
        self.cancelled = True

    def check(self) -> None:
        """Raise :class:`Cancelled` where nobody wants it any more."""
        if self.cancelled:
            raise Cancelled("the job was cancelled while it ran")


class _Working(threading.local):
    token: Token | None = None


_working: Final = _Working()


@contextmanager
def cancelled_by(token: Token) -> Iterator[None]:
    """Put what this thread does inside the context under ``token``: every deadline that it makes there."""
    before, _working.token = _working.token, token
    try:
        yield
    finally:
        _working.token = before


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a monotonic clock. Passed down, never restarted: each step asks what is left of the same budget.

    ``token`` is whose cancellation makes it pass at once, ``None`` where nothing can.
    """

    at_s: float
    budget_s: float
    clock: Callable[[], float] = time.monotonic
    token: Token | None = None

    @classmethod
    def after(cls, budget_s: float, clock: Callable[[], float] = time.monotonic, *, spent_s: float = 0.0) -> "Deadline":
        """Return the deadline of a budget of ``budget_s`` seconds, ``spent_s`` of which are gone already."""
        return cls(clock() + budget_s - spent_s, budget_s, clock, _working.token)

    @property
    def turn_s(self) -> float:
        """The longest wait, in seconds, after which to ask again what is left."""
        return math.inf if self.token is None else _TURN_S

    def remaining_s(self) -> float:
        """Return the seconds left, always more than zero.

        Raises :class:`AttemptTimeout` when there are none, :class:`Cancelled` when nobody waits for what comes of it.
        """
        if self.token is not None:
            self.token.check()
        left = self.at_s - self.clock()
        if left <= 0:
            raise self.overdue()
        return left

    def overdue(self) -> AttemptTimeout:
        """Return the error to raise when it has passed."""
        return AttemptTimeout(f"the deadline of {self.budget_s:g} s has passed")
