"""One simulation from beginning to end: the router's fleet and the oracle's, over the same jobs."""

import time
from collections import Counter
from collections.abc import Callable
from random import Random

from packetfs_compute.routing.decide import weights
from packetfs_compute.simulator.engine import Engine
from packetfs_compute.simulator.fleet import Place, Trip
from packetfs_compute.simulator.oracle import Oracle
from packetfs_compute.simulator.publishers import Counting
from packetfs_compute.simulator.scenario import Scenario
from packetfs_compute.simulator.tally import GroupShare, Report, Tally
from packetfs_compute.simulator.world import Job, arrivals, blocks_of

__all__ = ["simulate"]

_MISROUTED = 1.05


class _Run:
    """Both sides' sums while a simulation runs."""

    def __init__(self, scenario: Scenario, counting: Counting) -> None:
        self.scenario = scenario
        self.blocks = blocks_of(scenario)
        self.oracle = Oracle(scenario, self.blocks)
        self.engine = Engine(scenario, self.blocks, scenario.seed, self.finished, counting)
        self.weights = [weights(mix.policy) for mix in scenario.mix]
        self.router_tally, self.oracle_tally = Tally(), Tally()
        self.failed_jobs = self.misroutes = 0
        self.misrouted_score = 0.0

    def job(self, job: Job) -> None:
        """Let one job be asked for, on both sides."""
        trip, place = self.engine.publish(job)
        mine, best = self.oracle.assign(job, self.engine.fleet.free_at)
        if mine.at >= 0:
            kind = self.scenario.mix[job.mix].name
            group = self.blocks[mine.at].number
            self.oracle_tally.add(kind, mine.score, mine.seconds, mine.usd, mine.egress_usd, group)
        if place is not None:
            chosen = self.oracle.expected(job, place.at, place.ends[0])
            if chosen.score > best.score * _MISROUTED:
                trip.best_score = best.score
        self.engine.send(trip, place, job.at)

    def finished(self, trip: Trip, seconds: float, place: Place | None) -> None:
        """Add up one job that has ended on the router's side."""
        money, time_weight = self.weights[trip.job.mix]
        kind = self.scenario.mix[trip.job.mix].name
        score = money * (trip.usd + trip.egress_usd) + time_weight * seconds
        if trip.best_score is not None:
            self.misroutes += 1
            self.misrouted_score += score - trip.best_score
        group = -1 if place is None else place.block.number
        self.failed_jobs += place is None
        self.router_tally.add(kind, score, seconds, trip.usd, trip.egress_usd, group)

    def report(self, wall_s: float) -> Report:
        """Return how it went."""
        engine, scenario = self.engine, self.scenario
        router, oracle = self.router_tally, self.oracle_tally
        return Report(
            scenario=scenario.name,
            title=scenario.title,
            seed=scenario.seed,
            jobs=scenario.jobs,
            places=scenario.places,
            publishers=scenario.publishers.count,
            simulated_s=engine.last_s,
            wall_s=wall_s,
            router=router.totals(),
            oracle=oracle.totals(),
            regret=_regret(router.score, oracle.score),
            regret_by_kind={
                kind: _regret(router.scores.get(kind, 0.0), score) for kind, score in oracle.scores.items()
            },
            groups=self._groups(),
            attempts=engine.attempts,
            failed_attempts=engine.failed_attempts,
            failovers=engine.failovers,
            moves=engine.moves,
            failed_jobs=self.failed_jobs,
            misroutes=self.misroutes,
            misroute_share=self.misroutes / scenario.jobs,
            misroute_regret=self.misrouted_score / oracle.score,
            longest_queue=engine.longest_queue,
            sends=tuple(engine.sends),
        )

    def _groups(self) -> tuple[GroupShare, ...]:
        failed, opened = Counter[int](), Counter[int]()
        for block, count in zip(self.blocks, self.engine.failed_by_block, strict=True):
            failed[block.number] += count
        for place in self.engine.fleet.places:
            opened[place.block.number] += place.health.opened
        jobs = self.scenario.jobs
        return tuple(
            GroupShare(
                name=group.name,
                places=group.count,
                jobs=self.router_tally.groups.get(number, 0),
                share=self.router_tally.groups.get(number, 0) / jobs,
                oracle_share=self.oracle_tally.groups.get(number, 0) / jobs,
                failed_attempts=failed[number],
                opened=opened[number],
            )
            for number, group in enumerate(self.scenario.groups)
        )


def simulate(scenario: Scenario, counting: Counting = "pace", clock: Callable[[], float] = time.perf_counter) -> Report:
    """Run ``scenario``; the same seed gives the same report but for ``wall_s``.

    ``counting`` is what publishers count of what they have sent; all but the default are for comparison.
    """
    started = clock()
    run = _Run(scenario, counting)
    for job in arrivals(scenario, Random(f"jobs {scenario.seed}")):
        run.job(job)
    run.engine.drain()
    return run.report(clock() - started)


def _regret(score: float, oracle: float) -> float:
    return score / oracle - 1 if oracle > 0 else 0.0
