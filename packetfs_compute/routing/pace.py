"""How fast jobs come, as one publisher sees it: what decisions need to know of all those that are made at the same time.

Each publisher knows its own rate, and takes the others to send as it does. A rate is kept for each class of jobs that
compete for the same places, and forgotten with tau 3 s: long enough to be no accident, short enough to see a burst.
"""

import math
from collections.abc import Hashable
from typing import Final

__all__ = ["Pace"]

TAU_S: Final = 3.0
_MAX_KINDS: Final = 4096


class Pace:
    """The rates of one publisher. Two threads at once may lose a count, and nothing else."""

    __slots__ = ("_jobs",)

    def __init__(self) -> None:
        self._jobs: dict[Hashable, tuple[float, float]] = {}

    def sent(self, kind: Hashable, now: float, count: int = 1) -> None:
        """Count a job of a class, or several."""
        if kind not in self._jobs and len(self._jobs) >= _MAX_KINDS:
            self._jobs.clear()
        self._jobs[kind] = count + self._faded(kind, now), now

    def rate(self, kind: Hashable, now: float) -> float:
        """Return how many jobs of a class this publisher sends in a second."""
        return self._faded(kind, now) / TAU_S

    def _faded(self, kind: Hashable, now: float) -> float:
        jobs, at = self._jobs.get(kind, (0.0, now))
        return jobs * math.exp(min(0.0, at - now) / TAU_S)
