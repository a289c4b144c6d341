"""The places of a simulated fleet: slots and queues as they are, and health as it is learnt of them."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from packetfs_compute.places import Prices
from packetfs_compute.routing import Capabilities, Health, Member, Outcome, Snapshot
from packetfs_compute.routing.health import probe_due, probed, recorded
from packetfs_compute.routing.recovery import Failed
from packetfs_compute.simulator.world import Block, Job

__all__ = ["Fleet", "Place", "Trip"]


@dataclass(slots=True)
class Trip:
    """A job on its way through the fleet."""

    job: Job
    elsewhere: bool
    """Whether another place would do as well."""
    failed: list[Failed] = field(default_factory=list)
    waited: bool = False
    """Whether it was sent, by recovery, to a place that it has failed on."""
    moves: int = 0
    best_score: float | None = None
    """Where it was misrouted: the score that was to be had."""
    usd: float = 0.0
    egress_usd: float = 0.0


@dataclass(slots=True)
class Place:
    """One place."""

    number: int
    at: int
    """Its block's number."""
    block: Block
    capabilities: Capabilities
    ends: list[float]
    """When each slot is free of all that runs and waits there, as a heap: the truth, which no router knows."""
    health: Health = field(default_factory=Health)
    running: int = 0
    queue: deque[Trip] = field(default_factory=deque)


class Fleet:
    """All places of a scenario's blocks."""

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self.places: list[Place] = []
        self.by_name: dict[str, Place] = {}
        self._free: list[list[tuple[float, int]]] = []
        for at, block in enumerate(blocks):
            declared = block.group.declared
            first = len(self.places)
            for number in range(block.first, block.first + block.count):
                name = declared.name if block.group.count == 1 else f"{declared.name}-{number}"
                place = Place(len(self.places), at, block, replace(declared, name=name), [0.0] * block.group.slots)
                self.places.append(place)
                self.by_name[name] = place
            self._free.append([(0.0, number) for number in range(first, len(self.places))])
        self._members = [Member(place.capabilities, place.health) for place in self.places]
        self._touched: dict[int, None] = {}

    def snapshot(self, now: float, publishers: int) -> Snapshot:
        """Return the fleet as a publisher reads it now."""
        for number in self._touched:
            place = self.places[number]
            health = replace(place.health, in_flight=place.running, depth=len(place.queue))
            self._members[number] = Member(place.capabilities, health)
        self._touched.clear()
        return Snapshot(tuple(self._members), now, publishers)

    def free_at(self, at: int) -> float:
        """Return when block ``at`` has a slot for a job that came now, at its least busy place."""
        free = self._free[at]
        while free[0][0] != self.places[free[0][1]].ends[0]:  # that place was given something since
            heapq.heappop(free)
        return free[0][0]

    def enter(self, place: Place, seconds: float, now: float) -> None:
        """Enter in the true slots what a job that comes now will take there."""
        heapq.heapreplace(place.ends, max(now, place.ends[0]) + seconds)
        heapq.heappush(self._free[place.at], (place.ends[0], place.number))
        self._touched[place.number] = None

    def begun(self, place: Place) -> None:
        """An attempt takes a slot."""
        place.running += 1
        self._touched[place.number] = None

    def ended(self, place: Place, outcome: Outcome, now: float) -> bool:
        """Give the slot back, learn how the attempt ended, and return whether the retry that it wants is granted."""
        place.running -= 1
        place.health, granted = recorded(place.health, outcome, now)
        self._touched[place.number] = None
        if not place.running and not place.queue and max(place.ends) > now:
            # Jobs that moved on, or ended otherwise than foreseen, are entered there still: nothing runs, so all is free.
            place.ends[:] = [now] * len(place.ends)
            heapq.heappush(self._free[place.at], (now, place.number))
        return granted

    def probe(self, now: float, random: Callable[[], float]) -> None:
        """Probe every place that is due."""
        for place in self.places:
            if probe_due(place.health, now):
                place.health = probed(place.health, place.block.answers(now), now, 0.75 + 0.5 * random())
                self._touched[place.number] = None

    def told(self, at: int, prices: Prices) -> None:
        """Let the fleet know new prices of block ``at``."""
        for place in self.places:
            if place.at == at:
                place.capabilities = replace(place.capabilities, prices=prices)
                self._touched[place.number] = None
