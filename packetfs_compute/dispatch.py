"""Run a job's attempt on the substrate whose queue it came from, record it, and say what follows.

A job whose values are known already ends there, with no attempt and without a look at its source. Else one attempt is:
see that the place may still run the job (a cap, a deadline, a breaker that opened since it was published), take one of
its slots, invoke it, record how it ended, and turn the answer into a result, a typed error, or :class:`Again`: another
attempt, perhaps elsewhere. The task system publishes that under the same id, so that the
caller's result handle is never broken; :meth:`Dispatcher.run_here` makes the attempts one after the other instead.

What the attempts before have done travels with the job as a :class:`Trail`. One deadline spans them all.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from packetfs_compute.attempt import outcome_of
from packetfs_compute.cache import Known, ResultCache
from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import (
    BrokerUnavailable,
    Cancelled,
    Internal,
    JobError,
    NoSubstrate,
)
from packetfs_compute.fleet import Fleet, Leased
from packetfs_compute.job import Job, wanted_for
from packetfs_compute.names import LOCAL, MAX_TIMEOUT_MS
from packetfs_compute.program import Program
from packetfs_compute.result import Attempt, JobResult, job_result
from packetfs_compute.routing import Candidate, Decision, Outcome, Policy, Wanted
from packetfs_compute.routing.breaker import opened_at
from packetfs_compute.routing.policy import unwanted
from packetfs_compute.routing.recovery import Again, Failed, after_failure, attempt_budget_s, may_retry
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest, open_source, presign
from packetfs_compute.substrates import Substrate, load_substrate, substrate_names
from packetfs_compute.wire import ComputeRequest, error_from_wire

__all__ = ["Chooser", "Course", "Dispatcher", "Observer"]

_MAX_MOVES: Final = 8
"""How often a job may be moved on without an attempt, before it is tried where it is."""
_SLOT_WAIT_S: Final = 2.0
"""How long to wait for a slot here before the job is moved on."""
_SLOT_POLL_S: Final = (0.01, 0.1)
_SIZE_TIMEOUT_S: Final = 5.0


class Chooser(Protocol):
    """What decides where a job runs: the router, or a stand-in for it."""

    def decide(self, wanted: Wanted, policy: Policy, tried: Collection[str] = ()) -> Decision:
        """Decide for one job, without the places in ``tried``."""


@dataclass(slots=True)
class Course:
    """How a job came to be where it ended.

    ``decision`` is what was seen when its last attempt began; or, where none began here, when it was given up.
    """

    decision: Decision | None = None
    decided_at: float = 0.0
    """Unix seconds."""
    total_s: float = 0.0
    """Since it was submitted, where that is known; else since it was here."""
    cached: bool = False
    """Whether its values were known, so that it ended with no attempt."""


class Observer(Protocol):
    """Who wants to know of every attempt and every job's end; for metrics and the journal.

    It is told while a job runs, so it must neither wait nor raise.
    """

    def attempt(self, job: Job, attempt: Attempt, outcome: Outcome, *, opened: bool) -> None:
        """One attempt has ended; ``opened``: and opened its substrate's breaker."""

    def moved(self, job: Job, substrate: str, again: Again) -> None:
        """The job goes on to another attempt."""

    def finished(self, job: Job, substrate: str, error: JobError | None, course: Course) -> None:
        """The job has ended."""


def _began() -> None:
    """Tell of an attempt that was known to begin before."""


def _to_nobody(leased: Leased, outcome: Outcome, now: float) -> bool:
    del leased, outcome, now
    return False


@dataclass(frozen=True)
class Dispatcher:
    """Runs attempts of the settings' fleet.

    ``entrust`` has a good attempt recorded by whoever stores its job's result, where somebody does, and says so;
    ``hold`` keeps a lease alive while an attempt runs, and ends it with :class:`Cancelled` when its job was. ``cache`` is
    asked for the values of jobs that pin a version, and given those of all whose version is certain.
    """

    settings: Settings
    fleet: Fleet
    chooser: Chooser
    observers: tuple[Observer, ...] = ()
    hold: Callable[[Leased], AbstractContextManager[object]] = nullcontext
    entrust: Callable[[Leased, Outcome, float], bool] = _to_nobody
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], object] = time.sleep
    random: Callable[[], float] = random.random
    cache: ResultCache | None = None

    def run(self, job: Job, substrate_name: str) -> JobResult | Again:
        """Make one attempt of ``job`` on ``substrate_name``; return its result, or where to go on.

        Raises the ``JobError`` that the job ended with, with ``attempts`` and ``job_id`` in its details.
        """
        trail, started, queued_s = job.trail, self.clock(), job.queued_s(self.wall())
        course = Course()
        with self._accounted(job, substrate_name, course, started - (queued_s or 0.0)):
            deadline = Deadline.after(
                job.policy.deadline_s or self.settings.timeout_s, self.clock, spent_s=queued_s or 0.0
            )
            deadline.remaining_s()
            known = self._known(job)
            course.cached = known is not None
            answer = known.answer() if known else self._computed(job, substrate_name, course, deadline, queued_s)
            if isinstance(answer, Again):
                return self._on(job, substrate_name, answer)
            trail.queued_s = queued_s if trail.queued_s is None else trail.queued_s
            course.total_s = (queued_s or 0.0) + self.clock() - started
            result = job_result(
                job.id, job.program, answer, trail.attempts, cost_usd=trail.spent_usd, queued_s=trail.queued_s,
                total_s=course.total_s, cached_from=known.values[0].places[0] if known else None,
            )  # fmt: skip
        for observer in self.observers:
            observer.finished(job, substrate_name, None, course)
        return result

    def run_here(self, job: Job, substrate_name: str) -> JobResult:
        """Make attempts until the job ends, waiting in this thread where one has to be waited for."""
        while True:
            answer = self.run(job, substrate_name)
            if not isinstance(answer, Again):
                return answer
            self.sleep(answer.delay_s)
            substrate_name = answer.substrate

    @contextmanager
    def _accounted(self, job: Job, substrate_name: str, course: Course, submitted: float) -> Iterator[None]:
        """Put what is known of the job on the error that it ends with."""
        try:
            yield
        except JobError as error:
            error.details.update(job_id=job.id, attempts=job.trail.attempts)
            course.total_s = self.clock() - submitted
            for observer in self.observers:
                observer.finished(job, substrate_name, error, course)
            raise

    def _known(self, job: Job) -> Known | None:
        """Return the values of the job where all are known, from places that its policy lets compute them."""
        if self.cache is None or job.program.etag is None or not job.policy.cache:
            return None
        known = self.cache.look(job.program)
        if known is None:
            return None
        wanted = {place.name for place in self.fleet.places if unwanted(job.policy, place) is None}
        return known if known.places <= wanted else None

    def _computed(
        self, job: Job, substrate_name: str, course: Course, deadline: Deadline, queued_s: float | None
    ) -> dict[str, Any] | Again:
        """Make the attempt, and return its answer, or where to go on."""
        trail = job.trail
        substrate = load_substrate(substrate_name, self.settings)
        wanted = self._wanted(job, deadline)
        course.decision = self.chooser.decide(wanted, job.policy, trail.failed_places())
        course.decided_at = self.wall()
        row, again = self._placed(job, course.decision, substrate_name)
        at_once = substrate.capabilities.kind == LOCAL and substrate.capabilities.slots is None
        if again is None and not at_once:
            again = self._slot(job, wanted, substrate_name, deadline)
        if again is not None:
            trail.moves += 1
            return again
        trail.queued_s = queued_s if trail.queued_s is None else trail.queued_s
        with self._beginning(Leased(substrate_name, job.id)) if at_once else nullcontext(_began) as began:
            answer = self._attempt(job, wanted, substrate, row, deadline, began)
        trust = substrate.capabilities.trust
        if self.cache is not None and job.policy.cache and trust != "any" and not isinstance(answer, Again):
            self.cache.keep(job.program, answer, substrate_name, sure=trust == "own")
        return answer

    def _on(self, job: Job, substrate_name: str, again: Again) -> Again:
        for observer in self.observers:
            observer.moved(job, substrate_name, again)
        return again

    def _wanted(self, job: Job, deadline: Deadline) -> Wanted:
        byte_count = job.program.length
        if byte_count is None and (job.policy.max_cost_usd is not None or len(self.fleet.places) > 1):
            byte_count = self._size(job.program, deadline)
        return wanted_for(
            job.program.data_url,
            byte_count,
            self.settings,
            spent_s=deadline.budget_s - deadline.remaining_s(),
            spent_usd=job.trail.spent_usd,
        )

    def _size(self, program: Program, deadline: Deadline) -> int | None:
        """Return how many bytes a range to the object's end has.

        A cap on its cost is kept before the first one is read, and a place is given the time that they need before another
        one has its turn.
        """
        patience = Deadline.after(min(_SIZE_TIMEOUT_S, deadline.remaining_s()), self.clock)
        try:
            with open_source(RangeRequest(program.data_url, 0, 0, program.etag), patience, self.settings) as stream:
                size = stream.object_size
        except JobError:  # the attempt will meet the same, and is the one to tell
            return None
        return None if size is None else max(0, size - program.offset)

    def _placed(self, job: Job, decision: Decision, here: str) -> tuple[Candidate | None, Again | None]:
        """Return this place's row of the decision, and where to move on to when it may not run the job now.

        Raises :class:`NoSubstrate` when no place may.
        """
        failed = job.trail.failed_places()
        row = next((row for row in decision.candidates if row.substrate == here), None)
        if row is None or row.veto is None or (row.by_health and decision.panic):
            return row, None
        if here in failed and job.trail.waited:  # its turn again, as recovery has said
            return row, None
        if row.by_health and (job.trail.moves >= _MAX_MOVES or row.share < 1):  # who sent it here has drawn already
            return row, None
        if decision.substrate is None or job.trail.moves >= _MAX_MOVES:
            raise job.trail.last_error() or _no_substrate(decision, self.settings)
        return row, Again(decision.substrate)

    def _slot(self, job: Job, wanted: Wanted, here: str, deadline: Deadline) -> Again | None:
        """Take a slot; when there is none for a while, return where else to go, or to come back later."""
        leased = Leased(here, job.id)
        give_up = self.clock() + min(_SLOT_WAIT_S, deadline.remaining_s())
        wait_s, longest_s = _SLOT_POLL_S
        while not self._begin(leased):
            if self.clock() >= give_up:
                others = self.chooser.decide(wanted, job.policy, {here, *job.trail.failed_places()})
                if others.substrate is None or others.panic:  # a full place is better than one that is not well
                    return Again(here, self.random())
                return Again(others.substrate)
            self.sleep(wait_s * (0.5 + self.random()))
            wait_s = min(2 * wait_s, longest_s)
        return None

    def _attempt(
        self,
        job: Job,
        wanted: Wanted,
        substrate: Substrate,
        row: Candidate | None,
        deadline: Deadline,
        began: Callable[[], object],
    ) -> dict[str, Any] | Again:
        """Invoke, record, and return the answer or what follows; raise what the job ended with."""
        place, trail = substrate.capabilities, job.trail
        leased = Leased(place.name, job.id)
        expected_s = row.run_s if row else place.overhead_s
        others = self.chooser.decide(wanted, job.policy, {place.name, *trail.failed_places()})
        elsewhere = others.substrate is not None and not others.panic
        started = self.clock()
        budget_s = 0.0
        try:
            with self._held(leased, began):
                budget_s = attempt_budget_s(deadline.remaining_s(), expected_s, trail.failed, elsewhere)
                answer, error = self._invoke(job, substrate, budget_s)
        except Cancelled as stopped:  # whatever the place has answered
            answer, error = {}, stopped
        except JobError:  # before the place was asked: the URL cannot be signed, the deadline has passed
            self._record(leased, Outcome(ok=False))
            raise
        seconds = round(self.clock() - started, 6)
        if error is not None:
            trail.failed.append(Failed(place.name, error.type, error.fault, not error.retryable))
        jitter = 0.75 + 0.5 * self.random()
        outcome = outcome_of(place, wanted, answer if error is None else error, seconds, expected_s, budget_s, jitter)
        again_here = error is not None and (error.fault == "source" or others.substrate is None)
        outcome = replace(outcome, wants_retry=again_here and error is not None and may_retry(error, trail.failed))
        granted, opened = self._record(leased, outcome)
        attempt = trail.add(place.name, error, seconds, outcome.cost_usd)
        for observer in self.observers:
            observer.attempt(job, attempt, outcome, opened=opened)
        if error is None:
            return answer
        remaining_s = deadline.at_s - self.clock()
        wanted = replace(wanted, spent_s=deadline.budget_s - remaining_s, spent_usd=trail.spent_usd)
        again = after_failure(
            error, trail.failed, remaining_s,
            lambda tried: self.chooser.decide(wanted, job.policy, tried), granted, self.random,
        )  # fmt: skip
        if again is None:
            raise error
        trail.waited = again.substrate in trail.failed_places()
        return again

    @contextmanager
    def _held(self, leased: Leased, began: Callable[[], object]) -> Iterator[None]:
        """Keep the lease alive inside; whatever happens there, ask at its end whether it was taken."""
        with self.hold(leased):
            try:
                yield
            finally:
                began()

    def _begin(self, leased: Leased) -> bool:
        """Take a slot; a fleet whose store is away bounds nothing and stops nothing."""
        try:
            return self.fleet.begin(leased, self.wall())
        except BrokerUnavailable:
            return True

    @contextmanager
    def _beginning(self, leased: Leased) -> Iterator[Callable[[], object]]:
        """Begin an attempt that needs no slot, without waiting: whether it began is asked at its end.

        If the job was cancelled before, a short one has computed in vain; a long one is told by its lease.
        """
        with self.fleet.beginning(leased, self.wall()) as answer:

            def began() -> None:
                with suppress(BrokerUnavailable):
                    answer()

            yield began

    def _record(self, leased: Leased, outcome: Outcome) -> tuple[bool, bool]:
        """Record; return whether a retry is granted, and whether this opened the breaker.

        What cannot be recorded is no reason to lose an answer.
        """
        now = self.wall()
        if outcome.ok and self.entrust(leased, outcome, now):  # of a good attempt nothing is asked
            return False, False
        try:
            health, granted = self.fleet.record(leased, outcome, now)
        except BrokerUnavailable:
            return outcome.wants_retry, False
        return granted, opened_at(health.breaker, now)

    def _invoke(self, job: Job, substrate: Substrate, budget_s: float) -> tuple[dict[str, Any], JobError | None]:
        # No key leaves the dispatcher: a substrate is given a URL that is good for this object alone.
        program = replace(job.program, data_url=presign(job.program.data_url, self.settings))
        timeout_ms = min(MAX_TIMEOUT_MS, max(1, int(budget_s * 1000)))
        answer = substrate.invoke(ComputeRequest(program, job.id, timeout_ms).to_wire())
        return answer, None if answer["success"] else error_from_wire(answer["error"])


def _no_substrate(decision: Decision, settings: Settings) -> JobError:
    reasons = decision.vetoes
    if not reasons:
        return Internal("the fleet is empty", {"hint": "name substrates in packetfs.toml"})
    told = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
    return NoSubstrate(
        f"policy leaves no place to run: {told}",
        {"field": "policy", "vetoes": reasons, "hint": f"allow one of {', '.join(substrate_names(settings))}"},
    )
