"""A scenario: who asks for what, of which places, and what befalls them, in simulated time.

How a file says it is :mod:`packetfs_compute.simulator.files`.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.places import Prices
from packetfs_compute.routing import Capabilities, Locality, Policy, locality

__all__ = [
    "Burst",
    "Group",
    "Mix",
    "Outage",
    "OutageKind",
    "PriceChange",
    "Publishers",
    "Scenario",
    "Sizes",
    "Wave",
    "scaled",
]

OutageKind = Literal["down", "hang", "errors", "slow"]
"""Refuses at once; says nothing until the caller gives up; answers probes but fails attempts; takes longer."""

_LEAST_LEFT: Final = 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """Log-normal byte counts, cut off at ``max``."""

    median: float
    sigma: float = 0.0
    max: float = float(MAX_RANGE_BYTES)


@dataclass(frozen=True, slots=True)
class Mix:
    """One kind of job. ``weight`` is its share of all, relative to the others'."""

    name: str
    weight: float
    url: str
    bytes: Sizes
    policy: Policy

    @property
    def source(self) -> Locality:
        """Where its bytes live, and what they cost elsewhere."""
        return locality(self.url)

    @property
    def scheme(self) -> str:
        """Its URL's scheme."""
        return self.url.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Outage:
    """``share`` of a group's places is unwell. ``factor``: how much slower, or which share of attempts fails."""

    kind: OutageKind
    start_s: float
    stop_s: float
    share: float = 1.0
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class PriceChange:
    """Prices from ``at_s`` on. The fleet is told ``told_after_s`` later, as when somebody has to change a setting."""

    at_s: float
    prices: Prices
    told_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Like places. The fields without ``declared`` are the truth, ``declared`` is what the router is told at first."""

    name: str
    count: int
    declared: Capabilities
    overhead_s: float
    bytes_per_s: float
    sigma: float
    error_rate: float
    outages: tuple[Outage, ...]
    price_changes: tuple[PriceChange, ...]

    @property
    def slots(self) -> int:
        """Attempts that one of its places runs at once."""
        return self.declared.slots or 1


@dataclass(frozen=True, slots=True)
class Burst:
    """For a while the rate is ``times`` the usual."""

    start_s: float
    stop_s: float
    times: float


@dataclass(frozen=True, slots=True)
class Wave:
    """A sine over the rate."""

    period_s: float
    amplitude: float


@dataclass(frozen=True, slots=True)
class Publishers:
    """Processes that decide, each with its own count of what it has sent; those of one phase read the fleet together."""

    count: int = 1
    phases: int = 1
    refresh_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of it."""

    name: str
    title: str
    seed: int
    jobs: int
    rate_per_s: float
    mix: tuple[Mix, ...]
    groups: tuple[Group, ...]
    publishers: Publishers = Publishers()
    bursts: tuple[Burst, ...] = ()
    wave: Wave | None = None
    timeout_s: float = 30.0
    """A job's deadline, and what a job that fails for good counts as."""

    @property
    def places(self) -> int:
        """How many places there are."""
        return sum(group.count for group in self.groups)


def scaled(scenario: Scenario, jobs: int) -> Scenario:
    """Return ``scenario`` at another size: as long, but with fewer (or more) jobs, publishers and places alike.

    So everything that happens at a moment stays, and so does the load of a place where there are many of its kind. Of a few
    some are left, so that a group is no single machine.
    """
    if jobs == scenario.jobs:
        return scenario
    factor = jobs / scenario.jobs

    def some(of: int) -> int:
        return max(min(of, _LEAST_LEFT), round(of * factor))

    return replace(
        scenario,
        jobs=jobs,
        rate_per_s=scenario.rate_per_s * factor,
        publishers=replace(scenario.publishers, count=some(scenario.publishers.count)),
        groups=tuple(replace(group, count=some(group.count)) for group in scenario.groups),
    )
