"""The publishers of a simulation: as :mod:`packetfs_compute.router` does, each decides by a picture that is a while old.

Those that read the fleet at the same moment see the same picture, so they share it, and for a large fleet its
the rankings that are made of it. What each has sent since is its own, and so is its shortlist.
"""

from collections import Counter
from collections.abc import Callable, Collection
from random import Random
from typing import Literal

from packetfs_compute.routing import Decision, Survey, Wanted, decide
from packetfs_compute.routing.pace import Pace
from packetfs_compute.routing.shortlist import MANY, Ranking, pick, rank, size_class
from packetfs_compute.simulator.scenario import Mix
from packetfs_compute.simulator.world import Job

__all__ = ["Counting", "Publisher", "View"]

Counting = Literal["pace", "count", "none"]
"""What a publisher makes of what it has sent: how fast it does; how many since the snapshot; nothing."""


class View:
    """One snapshot's survey, and the rankings that were made of it."""

    def __init__(self, fleet: Survey, random: Callable[[], float]) -> None:
        self.fleet = fleet
        self._random = random
        self._rankings: dict[tuple[int, int], Ranking] = {}

    def ranking(self, job: Job, mix: Mix, wanted: Wanted) -> Ranking:
        """Return how the places rank for jobs like this one."""
        key = job.mix, size_class(job.byte_count)
        found = self._rankings.get(key)
        if found is None:
            found = self._rankings[key] = rank(wanted, mix.policy, self.fleet, self._random)
        return found


class Publisher:
    """One process that decides."""

    __slots__ = ("_count", "_counting", "_drawn", "_lists", "_pace", "_random", "_seen", "phase")

    def __init__(self, number: int, phase: int, counting: Counting, places: int, random: Callable[[], float]) -> None:
        self.phase = phase
        self._counting = counting
        self._random = random
        own = Random(f"publisher {number}").random
        self._drawn = tuple(own() for _ in range(places)) if places > MANY else ()
        self._pace = Pace()
        self._count: Counter[str] = Counter()
        self._lists: dict[tuple[int, int], Survey] = {}
        self._seen: View | None = None

    def publish(self, view: View, job: Job, mix: Mix, wanted: Wanted) -> Decision:
        """Choose for a new job, and count it as sent."""
        rate = 0.0
        if self._counting == "pace":
            kind = job.mix, size_class(job.byte_count)
            rate = self._pace.rate(kind, job.at)
            self._pace.sent(kind, job.at)
        decision = self.decide(view, job, mix, wanted, rate=rate)
        if decision.substrate is not None and self._counting != "none":
            self._count[decision.substrate] += 1
        return decision

    def decide(
        self, view: View, job: Job, mix: Mix, wanted: Wanted, tried: Collection[str] = (), rate: float = 0.0
    ) -> Decision:
        """Decide for one job; by all places where none of the shortlist will do. ``rate`` is one publisher's."""
        if self._seen is not view:
            self._seen = view
            self._count.clear()
            self._lists.clear()
        some = self._list(view, job, mix, wanted)
        coming = rate * (some.publishers - 1)
        decision = decide(wanted, mix.policy, some, self._random, self._count, tried, coming)
        if some is not view.fleet and (decision.substrate is None or decision.panic):
            return decide(wanted, mix.policy, view.fleet, self._random, self._count, tried)
        return decision

    def _list(self, view: View, job: Job, mix: Mix, wanted: Wanted) -> Survey:
        if not self._drawn:
            return view.fleet
        key = job.mix, size_class(job.byte_count)
        found = self._lists.get(key)
        if found is None:
            found = self._lists[key] = pick(view.ranking(job, mix, wanted), self._drawn, self._random)
        return found
