"""One moment's picture of the fleet, made ready for many decisions.

A :class:`Snapshot` is what was read: each substrate's capabilities and health. :func:`survey` turns it once into
:class:`Outlook` values, in which all that does not depend on the job is worked out, so that a decision costs
microseconds. Until one was read, :func:`unmeasured` makes one of declared capabilities alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from packetfs_compute.routing.breaker import TRIALS, slow_start_share, state_at
from packetfs_compute.routing.capabilities import Capabilities
from packetfs_compute.routing.estimate import Line, learnt
from packetfs_compute.routing.health import Health

__all__ = ["BUSY", "OPEN", "SLOW", "UNCONSUMED", "Member", "Outlook", "Snapshot", "Survey", "survey", "unmeasured"]

SLOW: Final = 1
"""Severities of what speaks against a place: it comes back slowly …"""
BUSY: Final = 2
"""… it has asked to be left alone, or as many are trying it already as may …"""
OPEN: Final = 3
"""… its breaker is open …"""
UNCONSUMED: Final = 4
"""… nobody would take the job there at all."""

_PRIOR_CALLS: Final = 5.0
_PRIOR_SUCCESS: Final = 0.99
_LEAST_SUCCESS: Final = 0.05
_DECLARED_SLOTS: Final = 8
"""What a place that declares no slots, and whose consumers are not known, is taken to run at once."""


@dataclass(frozen=True, slots=True)
class Member:
    """A substrate of the fleet: what it declares, and what is measured of it."""

    place: Capabilities
    health: Health


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet at ``at`` (Unix seconds). ``publishers`` is how many processes decide by pictures like this one."""

    members: tuple[Member, ...]
    at: float = 0.0
    publishers: int = 1


@dataclass(slots=True)
class Outlook:
    """What a snapshot means for one substrate, whatever the job."""

    place: Capabilities
    line: Line
    slots: int
    ahead: int
    """Attempts running or queued there."""
    success: float
    share: float
    """Of its traffic, what it may get now: less than 1 in a slow start."""
    unwell: str | None
    """Why its health speaks against it."""
    severity: int = 0
    """How much that is to be heeded where nothing else is left; see :data:`SLOW`."""
    most: int | None = None
    """How many attempts it may have running or queued, while its breaker only lets a few through to see."""


@dataclass(frozen=True, slots=True)
class Survey:
    """All outlooks of one snapshot."""

    outlooks: tuple[Outlook, ...]
    at: float
    publishers: int


def unmeasured(places: Iterable[Capabilities]) -> Snapshot:
    """Return the snapshot of a fleet of which only the capabilities are known."""
    return Snapshot(tuple(Member(place, Health()) for place in places))


def survey(snapshot: Snapshot, now: float) -> Survey:
    """Return what ``snapshot`` means at ``now``."""
    return Survey(tuple(_outlook(member, now) for member in snapshot.members), snapshot.at, snapshot.publishers)


def _outlook(member: Member, now: float) -> Outlook:
    place, health = member.place, member.health
    if state_at(health.breaker, now) == "half_open":
        # What it did before it was shut out says nothing of it now: were that held against it, nobody would try it.
        health = replace(health, surprise_s=0.0, calls=0.0, failures=0.0)
        most = TRIALS
    else:
        most = None
    good = health.calls - health.failures + _PRIOR_CALLS * _PRIOR_SUCCESS
    slots = min(place.slots or 1 << 30, health.slots or 1 << 30)
    unwell, severity = _unwell(health, now)
    return Outlook(
        place=place,
        line=learnt(place, health, now),
        slots=slots if slots < 1 << 30 else _DECLARED_SLOTS,
        ahead=health.in_flight + health.depth,
        success=max(_LEAST_SUCCESS, good / (health.calls + _PRIOR_CALLS)),
        share=slow_start_share(health.breaker, now),
        unwell=unwell,
        severity=severity,
        most=most,
    )


def _unwell(health: Health, now: float) -> tuple[str | None, int]:
    if health.slots == 0:
        return "nobody consumes its queue", UNCONSUMED
    if state_at(health.breaker, now) == "open":
        return f"breaker open for {health.breaker.until - now:.1f} s more", OPEN
    if health.busy_until > now:
        return f"asked to be left alone for {health.busy_until - now:.1f} s", BUSY
    return None, 0
