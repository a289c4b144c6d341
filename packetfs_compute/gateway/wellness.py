"""What is unwell in a system, from what its Redis holds; a pure function."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, NotRequired, TypedDict

from packetfs_compute import __version__
from packetfs_compute.names import queue_of
from packetfs_compute.routing import Member
from packetfs_compute.routing.breaker import state_at

__all__ = ["Report", "Unwell", "assess", "no_redis"]

_SILENT_S: Final = 15.0
"""A job that the sweeper should have looked at so long ago: nobody sweeps. It takes a turn every second or two."""


class Unwell(TypedDict):
    """One thing that is not as it should be."""

    what: Literal["redis", "queue", "breaker", "upkeep"]
    name: NotRequired[str]
    """The substrate, where it is one."""
    message: str


class Report(TypedDict):
    """``degraded``: jobs run, but not all is well. ``unhealthy``: none could run."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    unwell: list[Unwell]


def no_redis() -> Report:
    """Return the report where Redis does not answer."""
    return _report("unhealthy", [{"what": "redis", "message": "the Redis of results and state does not answer"}])


def assess(members: Sequence[Member], consumers: Mapping[str, Collection[str]], overdue_s: float, now: float) -> Report:
    """Return the report for the fleet's ``members``, who consumes which queue, and how late the sweeper is."""
    unwell: list[Unwell] = []
    for member in members:
        name = member.place.name
        if not consumers.get(name):
            unwell.append({"what": "queue", "name": name, "message": f"nobody consumes {queue_of(name)}"})
        breaker = member.health.breaker
        # That nobody lends a browser now is no fault of the system.
        if state_at(breaker, now) == "open" and member.place.kind != "browser":
            again_s = max(0.0, breaker.until - now)
            unwell.append({"what": "breaker", "name": name, "message": f"open for {again_s:.0f} s more"})
    if overdue_s > _SILENT_S:
        message = f"no sweep for {overdue_s:.0f} s: start `packetfs upkeep`, or Celery beat"
        unwell.append({"what": "upkeep", "message": message})
    if not any(consumers.get(member.place.name) for member in members):
        return _report("unhealthy", unwell)
    return _report("degraded" if unwell else "healthy", unwell)


def _report(status: Literal["healthy", "degraded", "unhealthy"], unwell: list[Unwell]) -> Report:
    return {"status": status, "version": __version__, "unwell": unwell}
