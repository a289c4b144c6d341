"""Deciding by a fleet that is at hand, with a fresh snapshot each time: for one process, and for tests."""

import random
import time
from collections.abc import Callable, Collection

from packetfs_compute.fleet.base import Fleet
from packetfs_compute.routing import Decision, Policy, Wanted, decide, survey

__all__ = ["FleetChooser"]


class FleetChooser:
    """Chooses among the places of ``fleet``."""

    def __init__(
        self, fleet: Fleet, clock: Callable[[], float] = time.time, random: Callable[[], float] = random.random
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._random = random

    def decide(self, wanted: Wanted, policy: Policy, tried: Collection[str] = ()) -> Decision:
        """Decide for one job, without the places in ``tried``."""
        now = self._clock()
        return decide(wanted, policy, survey(self._fleet.snapshot(now), now), self._random, tried=tried)
