"""What is measured of a substrate: what its attempts take, how they end, its breaker, its load, and what it has cost.

A :class:`Health` is one moment's value and never changes. :func:`recorded` and :func:`probed` return the next one; they
are all there is to the fleet's state, and the Lua script of :mod:`packetfs_compute.fleet` does the same arithmetic at
the shared store. The numbers are those of the field:

- *What an attempt takes* is learnt as a line, overhead + bytes x slope, by least squares over all finished attempts,
  each forgotten with a half life of three and a half minutes (tau 300 s). A slow surprise counts at once and fades with
  tau 10 s, as in Finagle's peak EWMA.
- *How they end* are two counts that fade with tau 30 s, and the failures in a row. Only the substrate's own faults count:
  a source that is down makes no place that reads from it look bad.
- *Retry budget* (Finagle): each attempt earns a fifth of a retry, and every second ten; a retry spends one.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from packetfs_compute.routing.breaker import Breaker, Event, next_breaker, state_at

__all__ = ["Health", "Outcome", "probe_due", "probed", "recorded"]

TAU_LEARN_S: Final = 300.0
TAU_SURPRISE_S: Final = 10.0
TAU_OUTCOME_S: Final = 30.0
FAILURE_S: Final = 5.0
"""What a failure counts as, as a surprise."""
BUDGET_PER_CALL: Final = 0.2
BUDGET_PER_S: Final = 10.0
BUDGET_CAP: Final = 100.0
MIN_CALLS: Final = 5.0
MIN_SUCCESS: Final = 0.8
MAX_STREAK: Final = 5
FALL: Final = 3
RISE: Final = 2
MAX_BUSY_S: Final = 300.0
PROBE_SURE_S: Final = 10.0
PROBE_UNSURE_S: Final = 2.0


_CLOSED: Final = Breaker()


@dataclass(frozen=True, slots=True)
class Health:
    """Measured facts of one substrate. Moments are Unix seconds; the sums are over megabytes (10**6) and seconds."""

    at: float = 0.0
    """When it was last recorded; everything that fades has faded until then."""
    weight: float = 0.0
    sum_x: float = 0.0
    sum_y: float = 0.0
    sum_xx: float = 0.0
    sum_xy: float = 0.0
    surprise_s: float = 0.0
    calls: float = 0.0
    failures: float = 0.0
    streak: int = 0
    budget: float = BUDGET_CAP
    busy_until: float = 0.0
    breaker: Breaker = _CLOSED
    probe_streak: int = 0
    """Good probes in a row; bad ones in a row below zero."""
    probed_at: float = 0.0
    in_flight: int = 0
    """Attempts that hold a lease now."""
    depth: int = 0
    """Messages in its queue."""
    slots: int | None = None
    """What its live consumers can run at once; ``None`` when nothing is known of consumers."""
    attempts: int = 0
    byte_count: int = 0
    cost_usd: float = 0.0
    opened: int = 0
    """How often its breaker has opened."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended. ``surprise_s`` is by how much it was slower than the worst that was to be expected."""

    ok: bool
    substrate_fault: bool = False
    byte_count: int = 0
    seconds: float = 0.0
    surprise_s: float = 0.0
    cost_usd: float = 0.0
    retry_after_s: float = 0.0
    wants_retry: bool = False
    """Whether the job would try again, which the retry budget may refuse."""
    jitter: float = 1.0
    """A random factor about 1 for how long the breaker stays open, so that a fleet's do not close together."""


def faded(health: Health, now: float) -> Health:
    """Return ``health`` with everything that fades brought to ``now``; a clock that went back fades nothing."""
    passed_s = max(0.0, now - health.at)
    learn, outcome = math.exp(-passed_s / TAU_LEARN_S), math.exp(-passed_s / TAU_OUTCOME_S)
    return replace(
        health,
        at=max(now, health.at),
        weight=health.weight * learn,
        sum_x=health.sum_x * learn,
        sum_y=health.sum_y * learn,
        sum_xx=health.sum_xx * learn,
        sum_xy=health.sum_xy * learn,
        surprise_s=health.surprise_s * math.exp(-passed_s / TAU_SURPRISE_S),
        calls=health.calls * outcome,
        failures=health.failures * outcome,
        budget=min(BUDGET_CAP, health.budget + BUDGET_PER_S * passed_s),
    )


def recorded(health: Health, outcome: Outcome, now: float) -> tuple[Health, bool]:
    """Return the health after an attempt, and whether the retry that it wants is within the budget."""
    h = faded(health, now)
    budget = min(BUDGET_CAP, h.budget + BUDGET_PER_CALL)
    granted = outcome.wants_retry and budget >= 1
    x, y = outcome.byte_count / 1e6, outcome.seconds
    learnt = 1.0 if outcome.ok else 0.0
    bad = 1.0 if outcome.substrate_fault else 0.0
    surprise_s = max(outcome.surprise_s, FAILURE_S if bad else 0.0)
    judged = outcome.ok or outcome.substrate_fault
    h = replace(
        h,
        weight=h.weight + learnt,
        sum_x=h.sum_x + learnt * x,
        sum_y=h.sum_y + learnt * y,
        sum_xx=h.sum_xx + learnt * x * x,
        sum_xy=h.sum_xy + learnt * x * y,
        surprise_s=max(h.surprise_s, surprise_s),
        calls=h.calls + (1 if judged else 0),
        failures=h.failures + bad,
        streak=h.streak + 1 if bad else 0 if outcome.ok else h.streak,
        budget=budget - 1 if granted else budget,
        busy_until=max(h.busy_until, now + min(MAX_BUSY_S, outcome.retry_after_s))
        if outcome.retry_after_s
        else h.busy_until,
        attempts=h.attempts + 1,
        byte_count=h.byte_count + outcome.byte_count,
        cost_usd=h.cost_usd + outcome.cost_usd,
    )
    if judged:
        h = _turned(h, _event(h, failed=bad > 0), now, outcome.jitter)
    return h, granted


def probed(health: Health, ok: bool, now: float, jitter: float = 1.0) -> Health:
    """Return the health after an active probe: three bad ones open the breaker, two good ones after bad let it try."""
    streak = max(health.probe_streak, 0) + 1 if ok else min(health.probe_streak, 0) - 1
    h = replace(health, probe_streak=streak, probed_at=now)
    if streak == RISE:  # not at each good one: a place that answers probes and fails attempts would never stay shut out
        return _turned(h, "risen", now, jitter)
    if streak <= -FALL:
        return _turned(h, "fallen", now, jitter)
    return h


def probe_due(health: Health, now: float) -> bool:
    """Whether to probe: every 10 s a place that is well, every 2 s one of which that is not sure."""
    sure = health.breaker.state == "closed" and health.probe_streak >= RISE and health.streak == 0
    return now - health.probed_at >= (PROBE_SURE_S if sure else PROBE_UNSURE_S)


def _event(health: Health, *, failed: bool) -> Event:
    if not failed:
        return "success"
    ratio = 1 - health.failures / health.calls if health.calls else 1.0
    beyond = health.streak >= MAX_STREAK or (health.calls >= MIN_CALLS and ratio < MIN_SUCCESS)
    return "too_many" if beyond else "failure"


def _turned(health: Health, event: Event, now: float, jitter: float) -> Health:
    before = health.breaker
    after = next_breaker(before, event, now, jitter)
    if after is before:
        return health
    fresh = after.state == "closed"  # what came before the cure says nothing about it
    return replace(
        health,
        breaker=after,
        calls=0.0 if fresh else health.calls,
        failures=0.0 if fresh else health.failures,
        surprise_s=0.0 if fresh else health.surprise_s,
        streak=0 if fresh else health.streak,
        opened=health.opened + (after.state == "open" and state_at(before, now) != "open"),
    )
