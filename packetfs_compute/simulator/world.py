"""The truth of a simulated fleet: what an attempt really takes, how it really ends, what it really costs.

A group's places that meet the same events are one :class:`Block`: they are all alike, so that whoever knows the future
needs to know only the earliest free slot of each.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, NamedTuple

from packetfs_compute.places import Prices
from packetfs_compute.routing.prices import attempt_usd
from packetfs_compute.simulator.scenario import Group, Outage, Scenario

__all__ = ["Block", "Ending", "Fate", "Job", "arrivals", "blocks_of"]

REFUSED_S: Final = 0.05
"""What it takes to be refused by a place that is down."""
_GOLDEN: Final = 0.6180339887498949

Ending = Literal["ok", "internal", "timeout"]


class Job(NamedTuple):
    """One job, with the luck that it will have wherever it goes: the oracle and the router meet the same."""

    number: int
    at: float
    mix: int
    byte_count: int
    noise: float
    """A standard normal number: how much longer than usual its attempts take, in sigmas."""
    luck: float
    """In [0, 1): whether an attempt fails where a share of them does."""


class Fate(NamedTuple):
    """How an attempt ends, and when."""

    ending: Ending
    seconds: float


@dataclass(slots=True)
class Block:
    """Places ``first`` up to ``first + count`` of a group, which meet the same ``outages``."""

    group: Group
    number: int
    """Of its group."""
    first: int
    count: int
    outages: tuple[Outage, ...]
    s_per_byte: float
    shift: float
    """Keeps the mean of the scatter at 1."""
    plain: bool
    """Whether neither its speed nor its prices ever change."""

    def prices(self, at: float) -> Prices:
        """Return the true prices at a moment."""
        now = self.group.declared.prices
        for change in self.group.price_changes:
            if change.at_s <= at:
                now = change.prices
        return now

    def run_s(self, job: Job, at: float) -> float:
        """Return what an attempt that begins at ``at`` takes once it runs, unless it fails."""
        group = self.group
        seconds = (group.overhead_s + job.byte_count * self.s_per_byte) * math.exp(group.sigma * job.noise - self.shift)
        for outage in self.outages:
            if outage.kind == "slow" and outage.start_s <= at < outage.stop_s:
                seconds *= outage.factor
        return seconds

    def usd(self, byte_count: int, seconds: float, at: float) -> float:
        """Return what the platform really charges for an attempt."""
        prices = self.group.declared.prices if self.plain else self.prices(at)
        return attempt_usd(prices, self.group.declared.memory_mb, byte_count, seconds)

    def fate(self, job: Job, at: float, budget_s: float, draw: int) -> Fate:
        """Return how the attempt that begins at ``at`` will end; each ``draw``, of place and try, has luck of its own."""
        run_s = self.run_s(job, at)
        for outage in self.outages:
            if outage.kind not in ("down", "hang") or outage.start_s >= at + run_s or outage.stop_s <= at:
                continue
            seconds = max(REFUSED_S, outage.start_s - at)
            if outage.kind == "down" and seconds <= budget_s:
                return Fate("internal", seconds)
            return Fate("timeout", budget_s)
        if run_s > budget_s:
            return Fate("timeout", budget_s)
        return Fate("ok" if (job.luck + draw * _GOLDEN) % 1.0 >= self.failing(at) else "internal", run_s)

    def answers(self, at: float) -> bool:
        """Whether a probe is answered."""
        return not any(one.kind in ("down", "hang") and one.start_s <= at < one.stop_s for one in self.outages)

    def failing(self, at: float) -> float:
        """Return which share of the attempts that begin at ``at`` fails after it has run."""
        wrong = sum(one.factor for one in self.outages if one.kind == "errors" and one.start_s <= at < one.stop_s)
        return self.group.error_rate + wrong

    def soonest(self, job: Job, at: float) -> float:
        """Return the first moment from ``at`` on at which an attempt may begin that no failing of the place ends."""
        for outage in self.outages:
            if outage.kind in ("down", "hang") and outage.stop_s > at and outage.start_s < at + self.run_s(job, at):
                at = outage.stop_s
        return at


def blocks_of(scenario: Scenario) -> tuple[Block, ...]:
    """Return the blocks of a scenario, the groups' in order."""
    blocks = []
    for number, group in enumerate(scenario.groups):
        reaches = [math.ceil(outage.share * group.count) for outage in group.outages]
        bounds = sorted({0, group.count, *reaches})
        for first, stop in itertools.pairwise(bounds):
            outages = tuple(
                sorted(
                    (one for one, reach in zip(group.outages, reaches, strict=True) if reach >= stop),
                    key=lambda one: one.start_s,
                )
            )
            plain = not (outages or group.price_changes)
            blocks.append(
                Block(group, number, first, stop - first, outages, 1 / group.bytes_per_s, group.sigma**2 / 2, plain)
            )
    return tuple(blocks)


def arrivals(scenario: Scenario, random: Random) -> Iterator[Job]:
    """Yield the jobs in the order in which they are asked for: a Poisson process whose rate follows the scenario."""
    weights = [mix.weight for mix in scenario.mix]
    bounds = [sum(weights[: at + 1]) / sum(weights) for at in range(len(weights))]
    bounds[-1] = 1.0
    sizes = [(math.log(mix.bytes.median), mix.bytes.sigma, mix.bytes.max) for mix in scenario.mix]
    at = 0.0
    for number in range(scenario.jobs):
        at += random.expovariate(_rate(scenario, at))
        drawn = random.random()
        mix = next(one for one, bound in enumerate(bounds) if drawn < bound)
        middle, sigma, most = sizes[mix]
        byte_count = int(min(most, math.exp(random.gauss(middle, sigma)))) or 1
        yield Job(number, at, mix, byte_count, random.gauss(0, 1), random.random())


def _rate(scenario: Scenario, at: float) -> float:
    rate = scenario.rate_per_s
    if scenario.wave is not None:
        rate *= 1 + scenario.wave.amplitude * math.sin(2 * math.pi * at / scenario.wave.period_s)
    for burst in scenario.bursts:
        if burst.start_s <= at < burst.stop_s:
            rate *= burst.times
    return max(rate, scenario.rate_per_s * 1e-3)
