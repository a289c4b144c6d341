"""The coordinator of one scan: has its windows run as jobs, a bounded number at once, until each has come to something.

It is a machine that is stepped. A step gathers what has ended, publishes once more what failed and may pass, hedges what is
late, publishes what there is room for, and tells how far it is. What it knows is in its store: a coordinator that takes over
begins with what is done, submits the rest under the same ids, and so finds the jobs that the one before it had published.

*Window jobs* are called ``<scan>.<window>``, and ``<scan>.<window>.<n>`` where one has to be run anew or is hedged. What
the dispatcher retries and fails over, it does within one job; here a job that has failed for good is run anew three times,
unless it says that no other time would help. *A hedge* is a second job for a window that has taken longer than nearly all
others, on another place; the first answer counts. Where no worker has begun with the first, that waits behind a place that
has stopped, and the second takes its place, which costs nothing. A place that several windows had to be run elsewhere for,
and that has done none since, is given no more of them for a while. *The cap on cost* holds by what windows have cost and
what those that are open are expected to: what would pass it is not published.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from packetfs_compute.broker.outcome import ErrorInfo
from packetfs_compute.deadline import Deadline
from packetfs_compute.desk import Submission
from packetfs_compute.errors import BrokerUnavailable, Cancelled, JobError, NoSubstrate, PacketFSError
from packetfs_compute.result import Attempt
from packetfs_compute.scanning.around import WindowDesk, WindowStore
from packetfs_compute.scanning.plan import Plan, Window
from packetfs_compute.scanning.request import Scan
from packetfs_compute.scanning.state import Found
from packetfs_compute.scanning.tally import Part, Progress, Speed
from packetfs_compute.scanning.windows import error_of, part_of, window_id, window_program

__all__ = ["Coordinator", "Terms"]

MAX_TRIES: Final = 3
"""How often a window is run anew."""
_BATCH: Final = 64
_HEDGED: Final = 0.05
"""Of all windows, this part may be hedged, and one at least."""
_LEAST_KNOWN: Final = 5
"""So many windows must have ended before it is known what is late."""
_LATE_S: Final = 2.0
_SHUNNED: Final = (3, 30.0)
"""A place that so many windows were late at, and that has done none since, gets no more of them for so many seconds."""
_TELL_EVERY_S: Final = 1.0
_PAUSES_S: Final = (0.01, 0.2)
"""Between two looks: the first after something has ended, growing to the longest."""
_AWAY_S: Final = 1.0
_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Terms:
    """How windows are to be run. ``policy`` is each one's, as JSON; ``most_open`` is how many at once."""

    policy: Mapping[str, Any]
    most_open: int
    estimate_usd: float = 0.0
    """What one is expected to cost."""
    cap_usd: float | None = None
    elsewhere: Callable[[Window, str], bool] = lambda _window, _place: False
    """Whether another place than the named one may run the window now."""


@dataclass(slots=True)
class _Open:
    """A window whose job, or whose job and hedge, are under way."""

    window: Window
    tries: int
    since_s: float
    ids: list[str]
    begun: bool = False
    """Whether a worker was seen to have taken it."""
    hedged: bool = False


@dataclass(slots=True)
class _Again:
    window: Window
    tries: int
    not_before_s: float = field(default=-math.inf)


class Coordinator:
    """Runs the windows of ``plan`` but for those that are ``found`` done; ``tell`` hears of progress once a second.

    ``deadline`` spans it all: its clock is the coordinator's, and its token ends it where nobody wants the scan any more.
    """

    def __init__(
        self,
        scan: Scan,
        plan: Plan,
        found: Found,
        terms: Terms,
        desk: WindowDesk,
        store: WindowStore,
        deadline: Deadline,
        tell: Callable[[Progress], object],
        sleep: Callable[[float], object],
    ) -> None:
        self.parts = dict(found.parts)
        self.tally = found.tally
        self._scan, self._plan, self._terms = scan, plan, terms
        self._desk, self._store = desk, store
        self._deadline, self._clock, self._sleep, self._tell = deadline, deadline.clock, sleep, tell
        self._fresh = (window for window in plan if window.number not in found.parts)
        self._again: deque[_Again] = deque()
        self._open: dict[int, _Open] = {}
        self._took_s: list[float] = []
        self._late_at: dict[str, tuple[int, float]] = {}
        self._tally_kept = found.tally.to_json()
        self._speed = Speed()
        self._told_s = -math.inf
        self._bytes = sum(part.byte_count for part in self.parts.values())
        self._spent_usd = sum(part.cost_usd for part in self.parts.values())

    @property
    def finished(self) -> bool:
        """Whether every window has come to something."""
        return len(self.parts) == self._plan.windows

    def run(self) -> list[Part]:
        """Step until it is done; return what the windows came to, in order.

        Raises the ``JobError`` that the scan ended with, having cancelled what was open. While the broker is away it waits.
        """
        pause_s, longest_s = _PAUSES_S
        try:
            while not self.finished:
                try:
                    pause_s = _PAUSES_S[0] if self.step() else min(1.5 * pause_s, longest_s)
                except BrokerUnavailable:
                    pause_s = _AWAY_S
                if not self.finished:
                    self._sleep(pause_s)
            self._report(last=True)
        except JobError as error:
            self._stop()
            error.details["attempts"] = list(self.tally.failed)
            raise
        return [self.parts[number] for number in range(self._plan.windows)]

    def step(self) -> bool:
        """Take one step; return whether any window came to something."""
        self._deadline.remaining_s()
        before = len(self.parts)
        self._gather()
        if not self.finished:
            self._hedge()
            self._submit()
        self._report()
        return len(self.parts) > before

    def _gather(self) -> None:
        asked = [(one, job_id) for one in self._open.values() for job_id in one.ids]
        statuses = self._desk.statuses([job_id for _, job_id in asked])
        done: dict[int, Part] = {}
        attempts: list[Attempt] = []
        ill: list[tuple[_Open, str, ErrorInfo | None]] = []
        for (one, job_id), status in zip(asked, statuses, strict=True):
            result = None if status is None else status["result"]
            if result is not None:
                done.setdefault(one.window.number, part_of(self._plan, one.window, result))
                attempts += result["attempts"]
            elif status is None or status["error"] is not None:
                ill.append((one, job_id, None if status is None else status["error"]))
            else:
                one.begun = one.begun or status["status"] == "running"
        self._done(done)
        self.tally.add(attempts, 0.0)  # what those that failed have cost is in the window's own cost
        for one, job_id, error in ill:
            if one.window.number not in done:
                self._failed(one, job_id, error)
        self._keep_tally()

    def _done(self, done: Mapping[int, Part]) -> None:
        """Keep what windows came to; only then forget their jobs, and stop those that are not needed any more."""
        if not done:
            return
        self._store.keep(done)
        over = [self._open.pop(number) for number in done]
        for one in over:
            self._took_s.append(self._clock() - one.since_s)
        self.parts.update(done)
        for part in done.values():
            self._late_at.pop(part.substrate, None)
        self._bytes += sum(part.byte_count for part in done.values())
        self._spent_usd += sum(part.cost_usd for part in done.values())
        for one in over:
            if len(one.ids) > 1:
                for job_id in one.ids:  # the one that has ended stays as it is
                    self._desk.cancel(job_id)
        self._desk.forget([job_id for one in over for job_id in one.ids])

    def _failed(self, one: _Open, job_id: str, info: ErrorInfo | None) -> None:
        """Have a window run anew whose job failed, was cancelled by somebody, or is not known any more."""
        if info is None:
            kept = self._store.part(one.window.number)
            if kept is not None:  # by another coordinator, who has had the job forgotten
                self._done({one.window.number: kept})
                return
        else:
            self.tally.add(info.get("attempts", ()), self._terms.estimate_usd)  # type: ignore[arg-type]
        one.ids.remove(job_id)
        if one.ids:  # its hedge is under way
            return
        error = error_of(info, self._plan)
        if one.tries >= MAX_TRIES or not self._may_pass(error):
            raise error
        del self._open[one.window.number]
        self._again.append(_Again(one.window, one.tries + 1, self._clock() + _AGAIN_S * 2**one.tries))

    def _may_pass(self, error: JobError) -> bool:
        """Whether a window that ended with ``error`` may be run anew."""
        if isinstance(error, NoSubstrate):  # its share of the cap went to attempts that failed; there may be more
            return self._terms.cap_usd is not None
        return error.fault == "substrate" or error.retryable or isinstance(error, Cancelled)

    def _hedge(self) -> None:
        """Run the latest windows once more, on another place, where they are later than can be explained."""
        if len(self._took_s) < _LEAST_KNOWN:
            return
        usual_s = sorted(self._took_s)[int(0.95 * (len(self._took_s) - 1))]
        now = self._clock()
        late = [one for one in self._open.values() if not one.hedged and now - one.since_s > usual_s + _LATE_S]
        most = max(1, int(_HEDGED * self._plan.windows))
        for one in sorted(late, key=lambda one: one.since_s):
            if one.begun and (self.tally.hedges >= most or not self._affordable(1)):
                continue
            one.hedged = True
            (place,) = self._desk.places(one.ids)
            if place is None or not self._terms.elsewhere(one.window, place):
                continue
            exclude = sorted({*self._terms.policy.get("exclude", ()), place})
            job_id = window_id(self._scan.id, one.window, one.tries, hedge=True)
            (told,) = self._desk.submit_many([self._job(one.window, job_id, {"exclude": exclude})])
            if isinstance(told, JobError):
                continue
            one.ids.append(job_id)
            self._late_at[place] = (self._late_at.get(place, (0, now))[0] + 1, now)
            if one.begun:
                self.tally.hedges += 1
            else:
                self._drop(one.ids[:-1])
                one.ids = [job_id]

    def _shunned(self, window: Window) -> set[str]:
        """Return the place that windows are late at, where there is one and another may run ``window``."""
        most, seconds = _SHUNNED
        for place, (count, since_s) in self._late_at.items():
            if count >= most and self._clock() - since_s < seconds and self._terms.elsewhere(window, place):
                return {place}
        return set()

    def _drop(self, job_ids: Sequence[str]) -> None:
        """Stop jobs that are not needed any more, and keep nothing of them."""
        for job_id in job_ids:
            self._desk.cancel(job_id)
        self._desk.forget(job_ids)

    def _submit(self) -> None:
        """Publish what there is room for: what is to run anew first, then what has not run yet."""
        room = min(_BATCH, self._terms.most_open - len(self._open))
        picked: list[_Again] = []
        while len(picked) < room and self._affordable(len(picked) + 1):
            one = self._pick()
            if one is None:
                break
            picked.append(one)
        if not picked:
            self._check_cap()
            return
        ids = [window_id(self._scan.id, one.window, one.tries) for one in picked]
        try:
            told = self._desk.submit_many(
                [
                    self._job(one.window, job_id, self._extra(one, len(picked)))
                    for one, job_id in zip(picked, ids, strict=True)
                ]
            )
        except BrokerUnavailable:  # some may be published: they are found by their ids
            self._again.extendleft(reversed([replace(one, not_before_s=-math.inf) for one in picked]))
            raise
        for one, job_id, status in zip(picked, ids, told, strict=True):
            if isinstance(status, JobError):
                self._refused(one, status)
            else:
                self._open[one.window.number] = _Open(one.window, one.tries, self._clock(), [job_id])

    def _refused(self, one: _Again, error: JobError) -> None:
        """An id that somebody else has used is passed over; nothing else of a window can be wrong that was not before."""
        if error.details.get("field") != "job_id" or one.tries >= MAX_TRIES:
            raise error
        self._again.append(replace(one, tries=one.tries + 1))

    def _pick(self) -> _Again | None:
        now = self._clock()
        for one in self._again:
            if one.not_before_s <= now:
                self._again.remove(one)
                return one
        if self._scan.chained and self._again:  # the bytes before come first
            return None
        window = next(self._fresh, None)
        return None if window is None else _Again(window, 0)

    def _affordable(self, more: int) -> bool:
        """Whether ``more`` windows can be run and the cap be held, whatever is open now costs what it is expected to."""
        cap = self._terms.cap_usd
        return cap is None or self._committed_usd() + more * self._each_usd() <= cap * (1 + 1e-9)

    def _committed_usd(self) -> float:
        open_jobs = sum(len(one.ids) for one in self._open.values())
        return self._spent_usd + self.tally.failed_usd + open_jobs * self._each_usd()

    def _each_usd(self) -> float:
        """Return what one window costs: as estimated, or more where those that are done did."""
        if not self.parts:
            return self._terms.estimate_usd
        return max(self._terms.estimate_usd, self._spent_usd / len(self.parts))

    def _check_cap(self) -> None:
        """End the scan where nothing is under way and the cap lets nothing begin."""
        if self._open or self._affordable(1):
            return
        cap, left = self._terms.cap_usd or 0.0, self._plan.windows - len(self.parts)
        raise NoSubstrate(
            f"the scan has cost ${self._committed_usd():.3g}, and the next of {left} windows ${self._each_usd():.3g}: "
            f"policy.max_cost_usd is ${cap:.3g}",
            {"field": "policy.max_cost_usd", "hint": "raise it; what is done is kept", "windows_left": left},
        )

    def _extra(self, one: _Again, picked: int) -> dict[str, Any]:
        """Return what the policy of a window's job has of its own: run anew, it may cost what is left."""
        if self._terms.cap_usd is None or not one.tries:
            return {}
        return {"max_cost_usd": max(0.0, self._terms.cap_usd - self._committed_usd()) / picked}

    def _job(self, window: Window, job_id: str, extra: Mapping[str, Any]) -> Submission:
        seeds = self.parts[window.number - 1].values if self._scan.chained and window.number else None
        program = window_program(self._scan, self._plan, window, seeds)
        policy = {**self._terms.policy, **extra}
        shunned = self._shunned(window)
        if shunned:
            policy["exclude"] = sorted({*policy.get("exclude", ()), *shunned})
        return Submission(job_id, program, policy, window_of=self._scan.id)

    def _report(self, *, last: bool = False) -> None:
        now = self._clock()
        if last or now - self._told_s >= _TELL_EVERY_S:
            self._told_s = now
            cost_usd = self._spent_usd + self.tally.failed_usd
            self._tell(self._speed.progress(now, self._plan, self._bytes, len(self.parts), cost_usd))

    def _keep_tally(self) -> None:
        now = self.tally.to_json()
        if now != self._tally_kept:
            self._store.keep_tally(self.tally)
            self._tally_kept = now

    def _stop(self) -> None:
        """Cancel what is open. What cannot be told is computed, and nobody looks at it."""
        with suppress(PacketFSError):
            for one in self._open.values():
                for job_id in one.ids:
                    self._desk.cancel(job_id)
