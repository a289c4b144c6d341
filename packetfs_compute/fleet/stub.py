"""A fleet in this process's memory: what the routing functions make of what happens, with nothing shared.

It is what `packetfs run --inline` uses, what a program can use that wants routing without Redis, and what the real
fleet is compared with in the tests.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from packetfs_compute.errors import Cancelled
from packetfs_compute.fleet.base import LEASE_S, Leased
from packetfs_compute.routing import Capabilities, Health, Member, Outcome, Snapshot
from packetfs_compute.routing.health import probed, recorded

__all__ = ["StubFleet"]

_PUBLISHER_S = 5.0


class StubFleet:
    """The fleet of one process. ``depths`` are its queues' lengths and ``cancelled`` jobs' ids; others may set both."""

    def __init__(self, places: Iterable[Capabilities]) -> None:
        self.places = tuple(places)
        self.depths: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._health = {place.name: Health() for place in self.places}
        self._leases: dict[str, dict[str, float]] = {place.name: {} for place in self.places}
        self._consumers: dict[str, dict[str, tuple[float, int]]] = {place.name: {} for place in self.places}
        self._publishers: dict[str, float] = {}

    def snapshot(self, now: float, publisher: str | None = None) -> Snapshot:
        """Return everything as it is now."""
        with self._lock:
            if publisher is not None:
                self._publishers[publisher] = now + _PUBLISHER_S
            publishers = sum(until > now for until in self._publishers.values())
            known = any(until > now for some in self._consumers.values() for until, _ in some.values())
            members = tuple(Member(place, self._now(place.name, now, known)) for place in self.places)
            return Snapshot(members, now, max(1, publishers))

    def begin(self, leased: Leased, now: float) -> bool:
        """Take a slot."""
        if leased.job_id in self.cancelled:
            raise Cancelled("the job was cancelled before this attempt")
        with self._lock:
            held = self._live(leased.substrate, now)
            slots = next(place.slots for place in self.places if place.name == leased.substrate)
            if slots is not None and leased.job_id not in held and len(held) >= slots:
                return False
            held[leased.job_id] = now + LEASE_S
            return True

    @contextmanager
    def beginning(self, leased: Leased, now: float) -> Iterator[Callable[[], bool]]:
        """Take a slot at once, and tell it later."""
        with suppress(Cancelled):
            self.begin(leased, now)
        yield lambda: self.begin(leased, now)

    def renew(self, leases: Iterable[Leased], now: float) -> frozenset[str]:
        """Keep leases alive."""
        held = list(leases)
        with self._lock:
            for leased in held:
                if leased.job_id in self._leases[leased.substrate]:
                    self._leases[leased.substrate][leased.job_id] = now + LEASE_S
        return frozenset(leased.job_id for leased in held) & self.cancelled

    def record(self, leased: Leased, outcome: Outcome, now: float) -> tuple[Health, bool]:
        """Give the slot back and learn how the attempt ended."""
        with self._lock:
            self._leases[leased.substrate].pop(leased.job_id, None)
            self._health[leased.substrate], granted = recorded(self._health[leased.substrate], outcome, now)
            return self._health[leased.substrate], granted

    def probed(self, substrate: str, ok: bool, now: float, jitter: float = 1.0) -> Health:
        """Learn what an active probe found."""
        with self._lock:
            self._health[substrate] = probed(self._health[substrate], ok, now, jitter)
            return self._health[substrate]

    def consuming(self, consumer: str, slots: Mapping[str, int], now: float, ttl_s: float) -> None:
        """Count a consumer for a while."""
        with self._lock:
            for substrate, count in slots.items():
                self._consumers[substrate][consumer] = (now + ttl_s, count)

    def consumers(self, now: float) -> dict[str, frozenset[str]]:
        """Return who consumes which substrate's queue."""
        with self._lock:
            return {
                name: frozenset(consumer for consumer, (until, _) in known.items() if until > now)
                for name, known in self._consumers.items()
            }

    def _live(self, substrate: str, now: float) -> dict[str, float]:
        held = {job_id: until for job_id, until in self._leases[substrate].items() if until > now}
        self._leases[substrate] = held
        return held

    def _now(self, substrate: str, now: float, consumers_known: bool) -> Health:
        slots = sum(count for until, count in self._consumers[substrate].values() if until > now)
        return replace(
            self._health[substrate],
            in_flight=len(self._live(substrate, now)),
            depth=self.depths.get(substrate, 0),
            slots=slots if consumers_known else None,
        )
