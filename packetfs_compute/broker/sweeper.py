"""The sweeper: looks at open jobs now and then, and publishes again what nobody will finish.

:func:`decide` is the whole of its judgement, a function of what is known of one entry. A job is *waiting* while the oldest
message in its list was put there no later than its own (a list is first in, first out), *running* while an attempt's lease
lives, and otherwise lost: taken by a worker that died, or by none, when Redis died with the answer to a BRPOP. What is taken
has :data:`Limits.start_s` to get its lease, so that a healthy job is not published twice.

Any number of sweepers may run at once: whatever one does is done by a script, and only if the entry is as it was read.
Publishing twice is harmless anyway: ops are pure, and the first result stands.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from celery import Celery
from celery.app.task import Context

from packetfs_compute.broker.amqp import publish_parcel, queue_length
from packetfs_compute.broker.entry import PATIENCE_S
from packetfs_compute.broker.ledger import Entry, Ledger, Move
from packetfs_compute.broker.letters import Letter, decoded, published_at, read_body, read_letter, republication
from packetfs_compute.broker.rejected import set_aside
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.errors import ConfigurationError, Internal

__all__ = ["Case", "Limits", "SweepReport", "Verdict", "decide", "sweep"]

_log = logging.getLogger(__name__)

_CLAIM_S: Final = 60.0
"""For how long other sweepers leave an entry alone that one is about to give up."""
_STALE_LEASE_S: Final = 3600.0
_LONGEST_UNSEEN_S: Final = 3600.0
"""How long a job may wait behind a broker of which only the queue's length is known, as long as that is not 0."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one pass and of one job."""

    entries: int = 500
    """Entries that a pass looks at."""
    resubmissions: int = 200
    """Messages that a pass publishes again: whatever went wrong, no storm comes of it."""
    runs: int = 20
    """Times that a job is published again before it is given up."""
    start_s: float = 5.0
    """How long a message that left its list may take to become an attempt with a lease."""
    shortest_wait_s: float = 5.0
    longest_wait_s: float = 30.0
    """Between two looks at a job that waits."""
    longest_delay_s: float = 300.0
    """Between two publications of a job."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a pass found (``checked`` is their sum), and did."""

    checked: int = 0
    finished: int = 0
    waiting: int = 0
    running: int = 0
    resubmitted: int = 0
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of one entry. ``queued``: its message may still be in its queue. ``chord``: it is a part of one."""

    letter: Letter
    runs: int = 0
    lease: float | None = None
    finished: bool = False
    chord: bool = False
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with an entry; for all but ``strike``, when to look at it next."""

    action: Literal["strike", "wait", "run", "start", "resubmit", "give_up"]
    until: float = 0.0
    reason: str = ""


def decide(case: Case, now: float, oldest_s: float, limits: Limits) -> Verdict:
    """Return what is to be done with an entry at the time ``now``; one older than ``oldest_s`` is given up."""
    letter = case.letter
    if case.finished and not case.chord:
        return Verdict("strike")
    if case.lease is not None and case.lease > now:
        return Verdict("run", case.lease)
    begin = max(letter.entered, letter.eta or 0.0)
    if begin > now:
        return Verdict("wait", begin + PATIENCE_S)
    if now - begin > oldest_s:
        return Verdict("give_up", now + _CLAIM_S, f"the job was not finished within {oldest_s:g} s")
    if case.queued:
        waited_s = now - letter.published
        return Verdict("wait", now + min(limits.longest_wait_s, max(limits.shortest_wait_s, waited_s / 2)))
    if case.lease is None:
        return Verdict("start", now + limits.start_s)
    if case.runs >= limits.runs:
        return Verdict("give_up", now + _CLAIM_S, f"the job ended its worker {case.runs + 1} times")
    return Verdict("resubmit", now + min(limits.longest_delay_s, 5.0 * 2**case.runs))


def sweep(app: Celery, limits: Limits = Limits(), now: float | None = None) -> SweepReport:
    """Make one pass over the ledger of ``app``; ``now`` is the server's time unless given.

    Raises redis-py's and kombu's errors when the state's Redis, or the broker, does not answer, and
    :class:`ConfigurationError` where the application keeps no ledger. What was not done is done in the next pass.
    """
    backend = app.backend
    if not isinstance(backend, ResultBackend):
        raise ConfigurationError("the application keeps no ledger", {"hint": "its results are in no Redis"})
    return _Pass(app, backend, limits, now).run()


class _Pass:
    """One look at everything that is due."""

    def __init__(self, app: Celery, backend: ResultBackend, limits: Limits, now: float | None) -> None:
        self._app = app
        self._backend = backend
        self._client: Any = backend.client
        self._ledger: Ledger = backend.ledger
        self._limits = limits
        self._now, self._entries = self._ledger.due(limits.entries, now)
        self._report = SweepReport(checked=len(self._entries))
        self._moves: list[Move] = []

    def run(self) -> SweepReport:
        finished, tails = self._look()
        lengths: dict[str, int] = {}
        for entry, is_finished in zip(self._entries, finished, strict=True):
            envelope = decoded(entry.message)
            try:
                letter = read_letter(envelope or {})
            except ValueError as error:
                self._give_up(entry, None, f"its entry in the ledger is unusable: {error}")
                continue
            if entry.key:
                tail = tails[entry.key]
                queued = tail is not None and (published_at(tail) or 0.0) <= letter.published
            else:
                if letter.queue not in lengths:
                    lengths[letter.queue] = queue_length(self._app, letter.queue)
                queued = lengths[letter.queue] > 0 and self._now - letter.published < _LONGEST_UNSEEN_S
            case = Case(letter, entry.runs, entry.lease, is_finished, _is_chord_part(is_finished, envelope), queued)
            self._act(entry, envelope or {}, decide(case, self._now, self._backend.expires or 86_400, self._limits))
        self._ledger.postpone(self._moves)
        self._ledger.forget_leases(self._now - _STALE_LEASE_S)
        return self._report

    def _look(self) -> tuple[list[bool], dict[str, bytes | None]]:
        """Return which entries have a result, and the oldest item of each list, in one round trip."""
        keys = sorted({entry.key for entry in self._entries if entry.key})
        with self._client.pipeline(transaction=False) as pipe:
            for entry in self._entries:
                pipe.get(self._backend.get_key_for_task(entry.id))
            for key in keys:
                pipe.lindex(key, -1)
            answers = pipe.execute()
        count = len(self._entries)
        return list(map(self._backend.is_final, answers[:count])), dict(zip(keys, answers[count:], strict=True))

    def _act(self, entry: Entry, envelope: Mapping[str, Any], verdict: Verdict) -> None:
        match verdict.action:
            case "strike":
                self._ledger.strike(entry.id)
                self._count("finished")
            case "wait":
                self._moves.append(Move(entry, verdict.until))
                self._count("waiting")
            case "run" | "start":
                self._moves.append(Move(entry, verdict.until, verdict.action == "start"))
                self._count("running")
            case "resubmit" if self._report.resubmitted < self._limits.resubmissions:
                self._resubmit(entry, envelope, verdict.until)
            case "give_up":
                self._give_up(entry, envelope, verdict.reason)

    def _resubmit(self, entry: Entry, envelope: Mapping[str, Any], until: float) -> None:
        letter = read_letter(envelope)
        message = republication(envelope, letter.entered)
        if not self._ledger.resubmit(entry, until, message, letter.tag):
            return
        if not entry.key:
            publish_parcel(self._app, envelope)
        _log.warning("job %s was lost; it is published again (%d of %d)", entry.id, entry.runs + 1, self._limits.runs)
        self._count("resubmitted")

    def _give_up(self, entry: Entry, envelope: Mapping[str, Any] | None, reason: str) -> None:
        """Fail a job, so that whoever waits for it learns of it, and keep its message for a person to see."""
        if self._ledger.postpone([Move(entry, self._now + _CLAIM_S)]) == 0:
            return
        request, queue, stored = None, "ledger", True
        body = _body(envelope)
        if envelope is not None and body is not None:
            headers, (args, kwargs, embedded) = envelope["headers"], body
            queue = read_letter(envelope).queue
            request = Context({**headers, "args": args, "kwargs": kwargs, "delivery_info": {}, **embedded})
            stored = not headers.get("ignore_result")
        error = Internal(reason, {"job_id": entry.id, "attempts": []})
        self._backend.mark_as_failure(entry.id, error, request=request, store_result=stored)
        set_aside(self._client, queue, entry.message, f"given up: {reason}")
        self._ledger.give_up(entry.id)
        _log.error("job %s was given up: %s", entry.id, reason)
        self._count("given_up")

    def _count(self, what: str) -> None:
        self._report = replace(self._report, **{what: getattr(self._report, what) + 1})


def _is_chord_part(finished: bool, envelope: Mapping[str, Any] | None) -> bool:
    """Whether the chord may not have heard of a finished job yet; asked only of those, for the body must be read."""
    body = _body(envelope) if finished else None
    return body is not None and bool(body[2].get("chord"))


def _body(envelope: Mapping[str, Any] | None) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
    try:
        return None if envelope is None else read_body(envelope)
    except ValueError:
        return None
