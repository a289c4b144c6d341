"""The router's side of a simulation, as discrete events: publish, wait, run, record, fail over.

Nothing here decides. Publishers choose by :func:`~packetfs_compute.routing.decide` over their own picture of the fleet,
consumers do what :mod:`packetfs_compute.dispatch` does: look whether the place is still well, give the attempt a budget,
record how it ended, and follow :func:`~packetfs_compute.routing.recovery.after_failure`. What an attempt really takes is
:mod:`packetfs_compute.simulator.world`'s to say.
"""

import heapq
from collections.abc import Callable, Collection
from random import Random
from typing import Any, Final

from packetfs_compute.errors import AttemptTimeout, Internal, JobError
from packetfs_compute.places import Prices
from packetfs_compute.routing import Decision, Outcome, Wanted, survey
from packetfs_compute.routing.egress import usd_per_byte
from packetfs_compute.routing.estimate import surprise_of
from packetfs_compute.routing.recovery import Failed, after_failure, attempt_budget_s, may_retry
from packetfs_compute.simulator.fleet import Fleet, Place, Trip
from packetfs_compute.simulator.publishers import Counting, Publisher, View
from packetfs_compute.simulator.scenario import Scenario
from packetfs_compute.simulator.world import Block, Fate, Job

__all__ = ["Engine", "Finished"]

_MAX_MOVES: Final = 8
_PROBE_S: Final = 1.0
_ERRORS: Final[dict[str, JobError]] = {
    "internal": Internal("the simulated place failed"),
    "timeout": AttemptTimeout("the simulated attempt took too long"),
}

Finished = Callable[[Trip, float, Place | None], object]
"""Called with a job, its latency in seconds, and where it succeeded: nowhere, if it failed for good."""


class Engine:
    """One run. ``finished`` is told of every job's end."""

    def __init__(
        self, scenario: Scenario, blocks: tuple[Block, ...], seed: int, finished: Finished, counting: Counting
    ) -> None:
        self.fleet = Fleet(blocks)
        self.attempts = self.failed_attempts = self.failovers = self.moves = self.longest_queue = 0
        self.failed_by_block = [0] * len(blocks)
        self.sends: list[dict[str, int]] = []
        """Attempts that began in each second, by group."""
        self._mix = scenario.mix
        self._timeout_s = scenario.timeout_s
        self._random = Random(f"router {seed}").random
        self._told_finished = finished
        self._under_way = 0
        self.last_s = 0.0
        """When the last job ended."""
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0
        self._sources = [mix.source for mix in scenario.mix]
        self._schemes = [mix.scheme for mix in scenario.mix]
        self._begin_clocks(scenario, blocks, counting)

    def publish(self, job: Job) -> tuple[Trip, Place | None]:
        """Let some publisher choose the place of a new job: to be sent there by :meth:`send`."""
        self.run_until(job.at)
        self._under_way += 1
        publisher = self._publishers[int(self._random() * len(self._publishers))]
        mix = self._mix[job.mix]
        decision = publisher.publish(self._views[publisher.phase], job, mix, self._wanted(job))
        return Trip(job, _elsewhere(decision)), self._place(decision.substrate)

    def send(self, trip: Trip, place: Place | None, now: float) -> None:
        """Put a job into the queue of ``place``."""
        if place is None:
            self._finished(trip, self._timeout_s, None)
            return
        tries = len(trip.failed)
        self.fleet.enter(
            place, place.block.fate(trip.job, max(now, place.ends[0]), self._timeout_s, tries).seconds, now
        )
        if place.running < place.block.group.slots and not place.queue:
            self._begin(place, trip, now)
        else:
            place.queue.append(trip)
            self.longest_queue = max(self.longest_queue, len(place.queue))

    def run_until(self, now: float) -> None:
        """Let everything happen that happens before ``now``."""
        while self._events and self._events[0][0] <= now:
            at, _, act, given = heapq.heappop(self._events)
            act(at, *given)

    def drain(self) -> None:
        """Let every job end."""
        while self._under_way:
            now, _, act, given = heapq.heappop(self._events)
            act(now, *given)

    def _begin_clocks(self, scenario: Scenario, blocks: tuple[Block, ...], counting: Counting) -> None:
        given = scenario.publishers
        self._refresh_s = given.refresh_s
        phases = min(given.phases, given.count)
        places = len(self.fleet.places)
        self._publishers = [
            Publisher(number, number % phases, counting, places, self._random) for number in range(given.count)
        ]
        self._consumer = Publisher(-1, 0, "none", places, self._random)
        first = survey(self.fleet.snapshot(0.0, given.count), 0.0)
        self._views = [View(first, self._random) for _ in range(phases)]
        for phase in range(phases):
            self._at((phase + 1) / phases * given.refresh_s, self._refresh, phase)
        self._at(_PROBE_S / 2, self._probe)
        for number, block in enumerate(blocks):
            for change in block.group.price_changes:
                self._at(change.at_s + change.told_after_s, self._told, number, change.prices)

    def _at(self, when: float, act: Callable[..., object], *given: Any) -> None:
        self._count += 1  # events of one moment happen in the order in which they were planned
        heapq.heappush(self._events, (when, self._count, act, given))

    def _refresh(self, now: float, phase: int) -> None:
        fleet = survey(self.fleet.snapshot(now, len(self._publishers)), now)
        self._views[phase] = View(fleet, self._random)
        self._at(now + self._refresh_s, self._refresh, phase)

    def _probe(self, now: float) -> None:
        self.fleet.probe(now, self._random)
        self._at(now + _PROBE_S, self._probe)

    def _told(self, now: float, number: int, prices: Prices) -> None:
        del now
        self.fleet.told(number, prices)

    def _wanted(self, job: Job) -> Wanted:
        return Wanted(job.byte_count, self._schemes[job.mix], self._sources[job.mix])

    def _place(self, name: str | None) -> Place | None:
        return None if name is None else self.fleet.by_name[name]

    def _choose(self, trip: Trip, tried: Collection[str]) -> Decision:
        """Decide as a consumer does: by its own picture, which counts nothing as sent."""
        job = trip.job
        return self._consumer.decide(self._views[0], job, self._mix[job.mix], self._wanted(job), tried)

    def _begin(self, place: Place, trip: Trip, now: float) -> None:
        """Begin an attempt, or move the job on where the place has fallen ill since it was sent."""
        outlook = self._views[0].fleet.outlooks[place.number]
        if outlook.unwell is not None and not trip.waited and trip.moves < _MAX_MOVES:
            decision = self._choose(trip, {one.substrate for one in trip.failed})
            if decision.substrate not in (None, place.capabilities.name) and not decision.panic:
                trip.moves += 1
                self.moves += 1
                self.send(trip, self._place(decision.substrate), now)
                return
        expected_s = outlook.line.seconds(trip.job.byte_count)
        remaining_s = trip.job.at + self._timeout_s - now
        if remaining_s <= 0:
            self._finished(trip, self._timeout_s, None)
            return
        budget_s = attempt_budget_s(remaining_s, expected_s, trip.failed, trip.elsewhere)
        fate = place.block.fate(trip.job, now, budget_s, _draw(place, trip))
        self.fleet.begun(place)
        self._sent_to(place, now)
        self._at(now + fate.seconds, self._ended, place, trip, fate, expected_s, budget_s, now)

    def _ended(
        self, now: float, place: Place, trip: Trip, fate: Fate, expected_s: float, budget_s: float, began: float
    ) -> None:
        error = _ERRORS.get(fate.ending)
        job, block = trip.job, place.block
        byte_count = job.byte_count if error is None else 0
        usd = block.usd(byte_count, fate.seconds, began)
        egress_usd = usd_per_byte(place.capabilities, self._sources[job.mix]) * byte_count
        trip.usd += usd
        trip.egress_usd += egress_usd
        if error is not None:
            trip.failed.append(Failed(place.capabilities.name, error.type, error.fault))
        hurried = fate.ending == "timeout" and budget_s < attempt_budget_s(budget_s + 1, expected_s, (), True)
        outcome = Outcome(
            ok=error is None,
            substrate_fault=error is not None and not hurried,
            byte_count=byte_count,
            seconds=fate.seconds,
            surprise_s=surprise_of(expected_s, fate.seconds) if error is None else 0.0,
            cost_usd=usd + egress_usd,
            wants_retry=error is not None and not trip.elsewhere and may_retry(error, trip.failed),
            jitter=0.75 + 0.5 * self._random(),
        )
        granted = self.fleet.ended(place, outcome, now)
        self.attempts += 1
        if error is None:
            self._finished(trip, now - job.at, place)
        else:
            self.failed_attempts += 1
            self.failed_by_block[place.at] += 1
            self._again(trip, error, granted, now)
        while place.queue and place.running < block.group.slots:
            self._begin(place, place.queue.popleft(), now)

    def _again(self, trip: Trip, error: JobError, granted: bool, now: float) -> None:
        remaining_s = trip.job.at + self._timeout_s - now
        again = after_failure(
            error, trip.failed, remaining_s, lambda tried: self._choose(trip, tried), granted, self._random
        )
        if again is None or remaining_s <= 0:
            self._finished(trip, self._timeout_s, None)
            return
        failed_on = {one.substrate for one in trip.failed}
        trip.waited = again.substrate in failed_on
        self.failovers += not trip.waited
        self._at(now + again.delay_s, self._send_again, trip, self._place(again.substrate))

    def _send_again(self, now: float, trip: Trip, place: Place | None) -> None:
        self.send(trip, place, now)

    def _finished(self, trip: Trip, seconds: float, place: Place | None) -> None:
        self._under_way -= 1
        self.last_s = max(self.last_s, trip.job.at + seconds)
        self._told_finished(trip, seconds, place)

    def _sent_to(self, place: Place, now: float) -> None:
        second = int(now)
        while len(self.sends) <= second:
            self.sends.append({})
        name = place.block.group.name
        self.sends[second][name] = self.sends[second].get(name, 0) + 1


def _draw(place: Place, trip: Trip) -> int:
    return place.number + 7 * len(trip.failed)


def _elsewhere(decision: Decision) -> bool:
    """Whether a second place would do, had the first one failed."""
    return any(row.veto is None and row.substrate != decision.substrate for row in decision.candidates)
