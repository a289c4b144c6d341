"""The circuit breaker, as a table of transitions: closed lets all through, open none, half-open a few to see.

::

    state      event       next
    ---------  ----------  --------------------------------------------------------------
    closed     success     closed
    closed     failure     closed
    closed     too_many    open, for 5 s doubling with each time in a row, up to 300 s
    closed     fallen      open                        (three probes in a row got no answer)
    closed     risen       closed
    open       success     open                        (an attempt from before it opened)
    open       failure     open
    open       too_many    open
    open       fallen      open, its time begins again
    open       risen       half_open                   (two probes were answered, after some that were not)
    half_open  success     closed after three, and then a slow start
    half_open  failure     open, for twice as long as before
    half_open  too_many    open, for twice as long as before
    half_open  fallen      open
    half_open  risen       half_open

An open breaker whose time is up is half-open: :func:`state_at` says so, and an event then finds it in that state. The
slow start gives a place that came back a tenth of its share, growing to all of it over thirty seconds.
"""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TRANSITIONS", "Breaker", "Event", "State", "next_breaker", "opened_at", "slow_start_share", "state_at"]

State = Literal["closed", "open", "half_open"]
Event = Literal["success", "failure", "too_many", "fallen", "risen"]
Move = Literal["stay", "open", "reopen", "renew", "try", "count"]

TRANSITIONS: Final[dict[State, dict[Event, Move]]] = {
    "closed": {"success": "stay", "failure": "stay", "too_many": "open", "fallen": "open", "risen": "stay"},
    "open": {"success": "stay", "failure": "stay", "too_many": "stay", "fallen": "renew", "risen": "try"},
    "half_open": {"success": "count", "failure": "reopen", "too_many": "reopen", "fallen": "reopen", "risen": "stay"},
}

FIRST_OPEN_S: Final = 5.0
LONGEST_OPEN_S: Final = 300.0
CALM_S: Final = 300.0
"""A breaker that was closed for this long begins with the first, short time again."""
TRIALS: Final = 3
"""Attempts that a half-open breaker lets through at once, and good ones that close it."""
SLOW_START_S: Final = 30.0
SLOW_START_FLOOR: Final = 0.1


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker's value. ``since`` is when it came into its state, ``until`` when an open one lets some through."""

    state: State = "closed"
    since: float = 0.0
    until: float = 0.0
    times: int = 0
    """How often it opened in a row, without a calm time between."""
    trials: int = 0
    """Good attempts since it is half-open."""


def state_at(breaker: Breaker, now: float) -> State:
    """Return the state at ``now``: an open breaker whose time is up is half-open."""
    return "half_open" if breaker.state == "open" and now >= breaker.until else breaker.state


def opened_at(breaker: Breaker, now: float) -> bool:
    """Whether it was what was recorded at ``now`` that opened it; a renewed one has been open for longer."""
    return breaker.state == "open" and breaker.since == now


def next_breaker(breaker: Breaker, event: Event, now: float, jitter: float = 1.0) -> Breaker:
    """Return the breaker after ``event``; the very same object when nothing changes."""
    state = state_at(breaker, now)
    move = TRANSITIONS[state][event]
    if move in ("open", "reopen"):
        calm = state == "closed" and now - breaker.since > CALM_S
        times = 1 if calm else breaker.times + 1
        return Breaker("open", now, now + _open_s(times) * jitter, times)
    if move == "renew":
        return Breaker("open", breaker.since, now + _open_s(breaker.times) * jitter, breaker.times)
    if move == "try":
        return Breaker("half_open", now, 0.0, breaker.times)
    if move == "count":
        trials = (breaker.trials if breaker.state == "half_open" else 0) + 1
        if trials >= TRIALS:
            return Breaker("closed", now, 0.0, breaker.times)
        return Breaker("half_open", now if breaker.state == "open" else breaker.since, 0.0, breaker.times, trials)
    return breaker


def slow_start_share(breaker: Breaker, now: float) -> float:
    """Return the share of its traffic that a place may get: 1, or less within thirty seconds of its return."""
    if breaker.state != "closed" or breaker.times == 0:
        return 1.0
    passed = (now - breaker.since) / SLOW_START_S
    return min(1.0, SLOW_START_FLOOR + (1 - SLOW_START_FLOOR) * max(0.0, passed))


def _open_s(times: int) -> float:
    return float(min(LONGEST_OPEN_S, FIRST_OPEN_S * 2 ** min(16, max(0, times - 1))))
