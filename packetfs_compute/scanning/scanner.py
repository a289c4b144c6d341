"""The way of one scan: learn the object's size and version, plan, run the windows or the chain, combine, keep the result.

A scan whose bytes must be seen in order is a chain. Where the router would run its windows on this machine, they are read
here, ahead, and all ops run over them in one pass; anywhere else they run one after the other, each from the value of the
one before.

What is known beforehand (:mod:`packetfs_compute.scanning.recall`) is not run at all; where that is the range's head, the
plan is of its tail alone.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

from packetfs_compute.broker.news import News
from packetfs_compute.cache import ResultCache
from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import (
    BrokerUnavailable,
    JobError,
    NoSubstrate,
    PacketFSError,
)
from packetfs_compute.job import wanted_for
from packetfs_compute.names import LOCAL
from packetfs_compute.routing import Decision, Policy, Survey, Wanted
from packetfs_compute.scanning.around import WindowDesk
from packetfs_compute.scanning.combine import joined
from packetfs_compute.scanning.coordinator import Coordinator, Terms
from packetfs_compute.scanning.here import chain_here, chain_plan, whole_range
from packetfs_compute.scanning.memory import Done, Memory
from packetfs_compute.scanning.plan import Plan, Rate, Window, plan_of, window_for
from packetfs_compute.scanning.proof import disproved
from packetfs_compute.scanning.recall import Head, Marker, onward
from packetfs_compute.scanning.request import Scan
from packetfs_compute.scanning.state import Found, ScanState
from packetfs_compute.scanning.tally import Part, Progress, ScanResult, scan_result
from packetfs_compute.scanning.windows import windows_glob
from packetfs_compute.settings import Settings

__all__ = ["Planner", "Scanner"]

_T = TypeVar("_T")

_TYPICAL: Final = 64 << 20
"""A window's bytes as long as it is not known how wide they are to be."""
_AWAY_S: Final = 1.0
_OPEN: Final = (4, 256)
"""Fewest and most windows that are open at once; in between, two for each slot: one that runs, and one that is next."""
_TOLD_PLACES: Final = 8


class Planner(Protocol):
    """What of :class:`packetfs_compute.router.Router` a scan goes by."""

    def refresh(self) -> None:
        """Read the fleet once."""

    def survey(self) -> Survey:
        """Return the fleet as it is known."""

    def decide(self, wanted: Wanted, policy: Policy, tried: Any = ()) -> Decision:
        """Decide for one job."""


@dataclass(frozen=True)
class Scanner:
    """Runs scans, each in the thread that asks for it. ``client`` is redis-py's, of the Redis that holds results."""

    settings: Settings
    desk: WindowDesk
    planner: Planner
    client: Any
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], object] = time.sleep
    cache: ResultCache | None = None
    rng: random.Random = field(default_factory=random.Random)
    news: Callable[[str], AbstractContextManager[News]] | None = None
    """What tells when one of the jobs whose ids match a pattern ends; without it they are looked at now and again."""

    def run(self, scan: Scan, tell: Callable[[Progress], object]) -> ScanResult:
        """Run ``scan``, or what of it is not done yet, and return its result; ``tell`` hears of progress.

        Raises the ``JobError`` that it ended with, ``job_id`` and ``attempts`` in its details; what is done is kept.
        """
        started_s = self.clock()
        queued_s = None if scan.submitted_at is None else max(0.0, round(self.wall() - scan.submitted_at, 6))
        deadline = Deadline.after(
            scan.policy.deadline_s or self.settings.result_ttl_s, self.clock, spent_s=queued_s or 0.0
        )
        state = ScanState(self.client, scan, self.settings.result_ttl_s)
        try:
            found = self._kept(state.found, deadline)
            if found.result is not None:
                return found.result
            with suppress(PacketFSError):
                self.planner.refresh()  # else it decides by what the places declare
            memory = Memory(scan, self.cache, self.planner, self.rng)
            plan = found.plan or whole_range(scan, deadline, self.settings, self.sleep)
            known = None if found.plan else memory.known(plan)
            if known is not None:
                done = Done.before(known, plan)
                self._kept(lambda: state.begin(plan), deadline)
            else:
                plan, terms = self._planned(scan, plan, memory, found, deadline)
                self._kept(lambda: state.begin(plan, found.head, found.anew), deadline)
                self._kept(lambda: state.keep_tally(found.tally), deadline)  # what the proof has cost
                done = self._done(scan, plan, terms, found, state, deadline, tell)
                memory.keep(_with_head(plan, scan), done)
            total_s = (queued_s or 0.0) + self.clock() - started_s
            result = scan_result(
                scan, plan, done.values, done.parts, found.tally,
                queued_s=queued_s, total_s=total_s, head=found.head, anew=found.anew,
            )  # fmt: skip
            self._kept(lambda: state.finish(plan, result), deadline)
        except JobError as error:
            error.details.setdefault("attempts", [])
            error.details["job_id"] = scan.id
            raise
        return result

    def _kept(self, call: Callable[[], _T], deadline: Deadline) -> _T:
        """Do ``call``, and again while Redis is away: whoever else would run the scan needs it as well."""
        while True:
            deadline.remaining_s()
            try:
                return call()
            except BrokerUnavailable:
                self.sleep(_AWAY_S)

    def _planned(self, scan: Scan, whole: Plan, memory: Memory, found: Found, deadline: Deadline) -> tuple[Plan, Terms]:
        """Return the plan, the one that is kept where there is one, and how its windows are to be run."""
        policy = replace(scan.policy, deadline_s=None, max_cost_usd=None, append_only=False)
        plan = found.plan
        if plan is None:
            self._learn_head(scan, whole, memory, policy, found, deadline)
            left = whole if found.head is None else _after(whole, found.head)
            decision = self._decide(scan, policy, min(left.length, scan.window or _TYPICAL))
            plan = self._plan_by(scan, decision, left)
        if plan.chained_here or not plan.windows:
            return plan, Terms({}, 1)
        decision = self._decide(scan, policy, plan.at(0).length)
        terms = Terms(_wishes(policy), 1 if scan.chained else _most_open(self._rates(decision)), _usd(decision))
        if scan.policy.max_cost_usd is not None:
            terms = self._capped(scan, policy, plan, terms, scan.policy.max_cost_usd)

        def elsewhere(window: Window, place: str) -> bool:
            wanted = wanted_for(scan.program.data_url, window.length, self.settings)
            other = self.planner.decide(wanted, policy, {place})
            return other.substrate is not None and not other.panic

        return plan, replace(terms, elsewhere=elsewhere)

    def _learn_head(
        self, scan: Scan, whole: Plan, memory: Memory, policy: Policy, found: Found, deadline: Deadline
    ) -> None:
        """Find what the range begins with, where the scan may go on from that and it is proved; or why there is none."""
        head, found.anew = memory.head(whole)
        if head is None:
            return
        marks = head.drawn(self.rng)
        decision = self._decide(scan, policy, max(mark.end - mark.start for mark in marks))
        terms = Terms(_wishes(policy), 1, _usd(decision), scan.policy.max_cost_usd)
        wrong = disproved(scan, whole, marks, terms, self.desk, found.tally, deadline, self.sleep)
        if wrong is None:
            found.head = head
        else:
            found.anew = f"{wrong} in {head.etag}"

    def _done(
        self,
        scan: Scan,
        plan: Plan,
        terms: Terms,
        found: Found,
        state: ScanState,
        deadline: Deadline,
        tell: Callable[[Progress], object],
    ) -> Done:
        """Run the plan, and return what that and the head came to."""
        head = found.head
        start = tuple(op.identity for op in scan.program.ops) if head is None else head.values
        if plan.chained_here:
            position, so_far = found.chain or (0, Part(start, 0, LOCAL, self.settings.region))
            marker = Marker(plan, so_far.values, self.rng, position)
            part = chain_here(scan, plan, (position, so_far), found.tally, deadline, self.settings, state, tell, marker)
            done = Done(part.values, [part] if part.byte_count else [], marker.marks)
        else:
            ops = onward(scan.program.ops, start)
            going_on = replace(scan, program=replace(scan.program, ops=ops))
            with self._waiting(scan) as wait:
                parts = Coordinator(going_on, plan, found, terms, self.desk, state, deadline, tell, wait).run()
            marker, values, count = Marker(plan, start, self.rng), start, 0
            for part in parts:
                values, count = tuple(joined(ops, values, part.values, part.byte_count)), count + part.byte_count
                marker.passed(count, values)
            done = Done(values, parts, marker.marks)
        return done if head is None else done.after(head, scan.program.offset)

    @contextmanager
    def _waiting(self, scan: Scan) -> Iterator[Callable[[float], object]]:
        """Yield what waits between two looks at windows."""
        if self.news is None:
            yield self.sleep
        else:
            with self.news(windows_glob(scan.id)) as news:
                yield news.wait

    def _plan_by(self, scan: Scan, decision: Decision, left: Plan) -> Plan:
        if scan.chained and decision.substrate == LOCAL:
            return chain_plan(scan, left)
        rates = self._rates(decision)
        window = scan.window or window_for(left.length, list(rates.values()), rates[str(decision.substrate)])
        return plan_of(left.offset, left.length, window, left.object_size, left.etag)

    def _rates(self, decision: Decision) -> dict[str, Rate]:
        """Return the places that may run windows."""
        may = {row.substrate for row in decision.candidates if row.veto is None or (decision.panic and row.by_health)}
        return {
            outlook.place.name: Rate(
                outlook.line.overhead_s, outlook.line.s_per_byte, outlook.slots, outlook.place.max_range_bytes
            )
            for outlook in self.planner.survey().outlooks
            if outlook.place.name in {*may, decision.substrate}
        }

    def _decide(self, scan: Scan, policy: Policy, length: int) -> Decision:
        decision = self.planner.decide(wanted_for(scan.program.data_url, length, self.settings), policy)
        if decision.substrate is None:
            told = "; ".join(f"{name} {why}" for name, why in list(decision.vetoes.items())[:_TOLD_PLACES])
            raise NoSubstrate(
                f"policy leaves no place to run a window of {length} bytes: {told or 'the fleet is empty'}",
                {"field": "policy", "vetoes": decision.vetoes},
            )
        return decision

    def _capped(self, scan: Scan, policy: Policy, plan: Plan, terms: Terms, cap_usd: float) -> Terms:
        """Return the terms of a scan that may cost ``cap_usd``, each window its share; refuse what would cost more."""
        share = cap_usd / plan.windows
        wanted = wanted_for(scan.program.data_url, plan.at(0).length, self.settings)
        decision = self.planner.decide(wanted, replace(policy, max_cost_usd=share))
        if decision.substrate is None:
            cheapest = self.planner.decide(wanted, replace(policy, goal="cheapest"))
            each = _usd(cheapest)
            raise NoSubstrate(
                f"the scan would cost about ${each * plan.windows:.3g} ({plan.windows} windows of {plan.window} bytes, "
                f"${each:.3g} each on {cheapest.substrate}): policy.max_cost_usd is ${cap_usd:.3g}",
                {
                    "field": "policy.max_cost_usd",
                    "hint": "raise it, or scan a shorter range",
                    "estimate_usd": each * plan.windows,
                    "max_cost_usd": cap_usd,
                },
            )
        wishes = {**terms.policy, "max_cost_usd": share}
        return replace(terms, policy=wishes, cap_usd=cap_usd, estimate_usd=_usd(decision))


def _after(whole: Plan, head: Head) -> Plan:
    length = whole.offset + whole.length - head.end
    return replace(whole, offset=head.end, length=length, window=max(1, length))


def _with_head(plan: Plan, scan: Scan) -> Plan:
    """Return all of the range of which ``plan`` may be the tail alone."""
    offset = scan.program.offset
    return replace(plan, offset=offset, length=plan.offset + plan.length - offset)


def _most_open(rates: dict[str, Rate]) -> int:
    fewest, most = _OPEN
    return min(max(fewest, 2 * sum(min(rate.slots, most) for rate in rates.values())), most)


def _usd(decision: Decision) -> float:
    return 0.0 if decision.chosen is None else decision.chosen.usd


def _wishes(policy: Policy) -> dict[str, Any]:
    """Return a policy as JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(policy).items()}
