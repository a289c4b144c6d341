"""Who knows the future: for each job in turn the place with the least true score, in a fleet where all jobs go by it.

It knows every attempt's true time and price, every outage before it begins, and, as all places of a block are alike and
go to the front of their queue in order, the very moment at which a slot is free. It is greedy: each job gets what is best
for itself. It sends nothing where it would fail, and waits for the end of an outage where that is best.

The same scan tells what would have been best at a job's moment in the *router's* fleet, which is how a misroute is known.
"""

import heapq
import math
from collections.abc import Callable
from typing import Final, NamedTuple

from packetfs_compute.routing.capabilities import Capabilities
from packetfs_compute.routing.decide import weights
from packetfs_compute.routing.egress import usd_per_byte
from packetfs_compute.routing.policy import unwanted
from packetfs_compute.simulator.scenario import Mix, Scenario
from packetfs_compute.simulator.world import Block, Job

__all__ = ["Choice", "Option", "Oracle", "options_of"]


class Option(NamedTuple):
    """A block that jobs of one mix may go to."""

    at: int
    """Its number among all blocks."""
    block: Block
    egress: float
    """USD a byte."""


class Choice(NamedTuple):
    """Where a job does best, and what that takes."""

    score: float
    at: int
    seconds: float
    usd: float
    egress_usd: float
    slot_until: float


_HOPELESS: Final = 0.5
_NONE: Final = Choice(math.inf, -1, 0.0, 0.0, 0.0, 0.0)


def options_of(mix: Mix, blocks: tuple[Block, ...]) -> list[Option]:
    """Return the blocks that a mix's policy and URL allow."""

    def allowed(place: Capabilities) -> bool:
        return unwanted(mix.policy, place) is None and (mix.scheme in place.schemes or mix.scheme == "s3")

    return [
        Option(at, block, usd_per_byte(block.group.declared, mix.source))
        for at, block in enumerate(blocks)
        if allowed(block.group.declared)
    ]


class Oracle:
    """Assigns every job, and keeps its own fleet's slots."""

    def __init__(self, scenario: Scenario, blocks: tuple[Block, ...]) -> None:
        self._weights = [weights(mix.policy) for mix in scenario.mix]
        self._options = [options_of(mix, blocks) for mix in scenario.mix]
        self._slots = [[0.0] * (block.count * block.group.slots) for block in blocks]

    def assign(self, job: Job, free_at: Callable[[int], float]) -> tuple[Choice, Choice]:
        """Return the oracle's choice for ``job``, and the best in a fleet whose blocks are free at ``free_at``.

        Only the oracle's own is entered anywhere.
        """
        money, time = self._weights[job.mix]
        mine = theirs = _NONE
        options = self._options[job.mix]
        for option in options:
            block = option.block
            place = block.group.declared
            egress = option.egress * job.byte_count
            run_s = block.run_s(job, job.at)
            least = money * egress + time * run_s  # before the platform's charge and any wait
            if block.plain and least >= mine.score and least >= theirs.score:
                continue
            if job.byte_count > place.max_range_bytes or run_s > place.max_duration_s:
                continue
            failing = block.failing(job.at)
            # Of several places it picks one that will not fail; of a single one it knows that it has to try twice.
            if job.luck >= failing or failing < _HOPELESS:
                tries = 2 if job.luck < failing and block.count == 1 else 1
                mine = min(mine, self._choice(job, option, self._slots[option.at][0], money, time, tries))
            theirs = min(theirs, self._choice(job, option, free_at(option.at), money, time))
        if mine.at >= 0:
            heapq.heapreplace(self._slots[mine.at], mine.slot_until)
        return mine, theirs

    def expected(self, job: Job, at: int, free_at: float) -> Choice:
        """Return what ``job`` takes at block ``at`` in a place with a slot from ``free_at`` on, its luck left aside."""
        money, time = self._weights[job.mix]
        option = next(one for one in self._options[job.mix] if one.at == at)
        return self._choice(job, option, free_at, money, time)

    @staticmethod
    def _choice(job: Job, option: Option, free_at: float, money: float, time: float, tries: int = 1) -> Choice:
        block = option.block
        start = max(job.at, free_at)
        if block.outages:
            start = block.soonest(job, start)
        run_s = block.run_s(job, start)
        usd = tries * block.usd(job.byte_count, run_s, start)
        egress = option.egress * job.byte_count
        seconds = start - job.at + tries * run_s
        return Choice(money * (usd + egress) + time * seconds, option.at, seconds, usd, egress, job.at + seconds)
